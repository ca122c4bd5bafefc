"""A short run of the fault suite: what is killed, stopped, poisoned and filled up costs no event and doubles none."""

from pathlib import Path

import pytest

from cli.chaos import run
from deploy.local.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_short_chaos_loses_and_doubles_nothing(tmp_path: Path, jars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Set here only to be removed after the test, as the suite sets them.
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "2000")
    report = run(Stack(tmp_path / "stack", jars), minutes=0.5, seed=14, at_least=4)
    assert report["faults"] >= 4
    assert report["events"] > 1000
    assert report["counts"] == {name: {"lost": 0, "doubled": 0} for name in report["counts"]}
    assert (report["lost"], report["doubled"]) == (0, 0)
