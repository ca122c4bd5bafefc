"""The panels of the jobs beside the main one ask for what the tests of those jobs find."""

import re

import pytest

from deploy.grafana.dashboard import OTHER_JOBS
from tests.panels import MEASURED

pytestmark = pytest.mark.unit


def test_each_panel_asks_for_what_a_test_of_its_job_finds() -> None:
    queries = (query for panels in OTHER_JOBS.values() for _, _, lines in panels for _, query in lines)
    asked = {name for query in queries for name in re.findall(r"(?:operator_|\()headrace_(\w+)", query)}
    assert asked == set().union(*MEASURED.values())
