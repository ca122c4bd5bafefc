"""The table of metrics is of those that the operators have."""

import re
from pathlib import Path

import pytest

from operators.metrics import METRICS

pytestmark = pytest.mark.unit
OPERATORS = Path(__file__).resolve().parents[3] / "operators"


def test_every_metric_is_registered_where_the_table_says_and_no_other_is() -> None:
    with_metrics = {operator for metric in METRICS.values() for operator in metric.operators}
    sources = {name: (OPERATORS / f"{name}.py").read_text() for name in with_metrics}
    for name, metric in METRICS.items():
        for operator in set(metric.operators) if name != "code_dead_letters" else ():
            assert f'"{name}"' in sources[operator], name
    named = {name for text in sources.values() for name in re.findall(r'(?:gauge|counter)\("(\w+)"', text)}
    named |= set(re.findall(r'"(\w+)": 0\.0', sources["scorer"]))
    assert named == set(METRICS) - {"code_dead_letters"}
