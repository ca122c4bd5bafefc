"""The table of metrics is of those that the operators have."""

import re
from pathlib import Path

import pytest

from operators.metrics import METRICS

pytestmark = pytest.mark.unit
# Flink puts the groups of a metric, which become its labels, before its name.
GROUPS = "^(segment|campaign|experiment_arm)_"
OPERATORS = Path(__file__).resolve().parents[3] / "operators"


def test_every_metric_is_registered_where_the_table_says_and_no_other_is() -> None:
    with_metrics = {operator for metric in METRICS.values() for operator in metric.operators}
    sources = {name: (OPERATORS / f"{name}.py").read_text() for name in with_metrics}
    registered = {re.sub(GROUPS, "", name): metric for name, metric in METRICS.items() if name != "code_dead_letters"}
    for name, metric in registered.items():
        for operator in metric.operators:
            assert f'"{name}"' in sources[operator], name
    named = {name for text in sources.values() for name in re.findall(r'(?:gauge|counter|distribution)\("(\w+)"', text)}
    assert named <= registered.keys()


def test_no_operator_in_the_jvm_has_a_gauge_that_asks_python() -> None:
    # A scrape would call it from the reporter's thread, while the operator's own is in the interpreter.
    asking = {path.name for path in OPERATORS.glob("*.py") if ".gauge(" in path.read_text()}
    # That one has a process of its own.
    assert asking == {"item_encoder.py"}
