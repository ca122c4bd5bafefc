"""What `produce` makes of a file's lines."""

import pytest
import typer

from cli.produce import parse_mapping, read_events
from deploy.local.stack import StackError

pytestmark = pytest.mark.unit


def test_short_and_full_names_map_columns() -> None:
    assert parse_mapping("user=uid,time=ts,price=cost") == {"uid": "user_id", "ts": "timestamp", "cost": "price"}
    assert parse_mapping("") == {}


@pytest.mark.parametrize("text", ["user", "user=", "=uid"])
def test_a_broken_mapping_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_mapping(text)


def test_csv_keeps_ids_as_text_numbers_as_numbers_and_leaves_out_empty_cells() -> None:
    lines = ["uid,item_id,event_type,ts,price,colour\n", "7,08,view,1700000000000,,red\n"]
    (event,) = read_events(lines, "a.csv", {"uid": "user_id", "ts": "timestamp"})
    event.pop("event_id")
    assert event == {
        "user_id": "7",
        "item_id": "08",
        "event_type": "view",
        "timestamp": 1700000000000,
        "colour": "red",
    }


def test_json_passes_timestamps_on_and_keeps_its_own_event_id() -> None:
    line = '{"event_id": "e", "user_id": 7, "timestamp": "2023-11-14T22:13:20Z"}\n'
    assert list(read_events([line, "\n"], "a.jsonl", {})) == [
        {"event_id": "e", "user_id": "7", "timestamp": "2023-11-14T22:13:20Z"}
    ]


def test_made_up_ids_repeat_with_the_file_and_differ_by_line() -> None:
    lines = ['{"user_id": "u"}\n'] * 2
    first, again = (
        [event["event_id"] for event in read_events(lines, name, {}) if name] for name in ("a.jsonl", "a.jsonl")
    )
    assert first == again
    assert len(set(first)) == 2


def test_a_line_that_is_no_object_is_named() -> None:
    with pytest.raises(StackError, match="Line 2"):
        list(read_events(["{}\n", "[1]\n"], "a.jsonl", {}))
