"""Broken input for the parsers and the configuration: only their own errors come out of them."""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.loading import SettingsError
from jobs.settings import load_settings
from schema.errors import MessageError
from schema.event import EventParser
from schema.item import parse_item
from tests.nasty import VALUES, broken

pytestmark = pytest.mark.unit
EVENT = {"event_id": "e", "user_id": "u", "event_type": "view", "timestamp": 1, "item_id": "i", "value": 3.5}
ITEM = {"item_id": "i", "title": "A", "category": ["a", "b"], "price": 1.5, "available": True}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20)


def test_parsers_take_or_refuse_60_000_broken_messages() -> None:
    chance, parser, taken, codes = random.Random(1), EventParser(), 0, set[str]()
    for number in range(60_000):
        try:
            if number % 3:
                event = parser.parse(broken(EVENT | {"timestamp": 1_600_000_000_000}, chance), 1_700_000_000_000)
                assert event.user_id.encode()
            else:
                parse_item("i", broken(ITEM, chance))
            taken += 1
        except MessageError as error:
            codes.add(error.code)
    assert codes >= {"not_json", "not_utf8", "wrong_type", "missing_field", "absurd_number", "id_too_long"}
    assert 1000 < taken < 40_000


@given(st.binary(max_size=200) | JSON.map(lambda value: repr(value).encode()))
def test_parsers_take_or_refuse_any_bytes(raw: bytes) -> None:
    for parse in (lambda: EventParser().parse(raw, 0), lambda: parse_item("i", raw)):
        with contextlib.suppress(MessageError):
            parse()


@given(
    st.dictionaries(
        st.sampled_from(["kafka", "events", "lists", "models", "flink", "privacy", "x"]),
        st.dictionaries(
            st.sampled_from(["start", "k", "weights", "device", "window_ms", "vocabulary"]),
            st.sampled_from([v for v in VALUES if isinstance(v, str | int) and "\x00" not in str(v)]),
        ),
    )
)
def test_a_broken_configuration_is_taken_or_refused(tables: dict[str, dict[str, object]]) -> None:
    kept = dict(os.environ)
    for section, fields in tables.items():
        for name, value in fields.items():
            os.environ[f"HEADRACE_{section}__{name}".upper()] = str(value).encode("utf-8", "ignore").decode()
    try:
        with contextlib.suppress(SettingsError):
            load_settings()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def test_coverage_guided_fuzzing_finds_nothing_in_the_event_parser(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    chance = random.Random(2)
    for number in range(50):
        (seeds / str(number)).write_bytes(broken(EVENT, chance))
    target = Path(__file__).with_name("fuzz_event_parser.py")
    command = [sys.executable, str(target), str(seeds), "-runs=20000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 20000 runs" in done.stderr
