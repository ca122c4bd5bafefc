"""What the catalogue says of an item, as it was kept before it had a version too."""

import json

import msgspec
import pytest
from pyflink.common import Row

from operators.actions import ActionsFunction
from schema.event import EventParser
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit


def test_what_was_kept_without_a_version_is_read() -> None:
    operator, flink = ActionsFunction(EventParser, None), Keyed()
    operator.open(flink)
    flink.key = "i"
    event = {"event_id": "e", "user_id": "u", "event_type": "view", "timestamp": 1_600_000_000_000, "item_id": "i"}

    def told(**fields: object) -> tuple[object, object]:
        (row,) = operator.process_element1(Row("", json.dumps(event | fields).encode(), 0, 0), flink)
        return row[4], row[5]

    flink.states["item"]["i"] = msgspec.msgpack.encode(("lamps", 2.5))
    assert told() == ("lamps", 2.5)
    list(operator.process_element2(Row("i", b'{"item_id":"i","category":["rugs"],"price":3}'), flink))
    assert flink.states["item"]["i"][0] == 1
    assert told() == ("rugs", 3.0)
    assert told(properties={"category": "c" * 10_000}) == ("c" * 256, 3.0)
    flink.states["item"]["i"] = b"\x09"
    with pytest.raises(ValueError, match="version 9"):
        told()
