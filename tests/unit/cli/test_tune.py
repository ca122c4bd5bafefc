"""`tune`: what it writes is a valid configuration, within the bounds, and no worse than the one before."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from jobs.settings import load_settings

pytestmark = pytest.mark.unit


def test_the_best_trial_becomes_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    events, out = tmp_path / "events.csv", tmp_path / "tuned.toml"
    rows = [f"u{n % 7},i{n * n % 11},view,{1_600_000_000 + n}000" for n in range(120)]
    events.write_text("\n".join(["user_id,item_id,event_type,timestamp", *rows]))
    items = tmp_path / "items.jsonl"
    items.write_text('{"item_id": "i1", "title": "One"}\n')
    asked = ["tune", str(events), "--trials", "3", "--out", str(out), "--items", str(items)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    found = re.search(r": ([\d.]+), ([\d.]+) before", out.read_text())
    assert found is not None
    assert float(found[1]) >= float(found[2]) > 0
    monkeypatch.setenv("HEADRACE_CONFIG", str(out))
    tuned = load_settings(out)
    items.write_text('{"item_id": ""}\n')
    assert CliRunner().invoke(app, asked).exit_code == 2
    assert 20 <= tuned.profiles.history_length <= 200
    assert 30 <= tuned.models.candidates <= 150
