"""One timer a person, whatever they do; and nothing of who is erased."""

from typing import Any

import msgspec
import pytest
from pyflink.common import Row

from model.behaviour import DAY_MS, BehaviourOptions, Person, unpack_person
from model.interest_drift import DriftOptions
from operators.behaviour import ABANDONED_CARTS, BehaviourFunction
from schema.behaviour import AbandonedCart, PersonSegment, decode_behaviour
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit
HOUR_MS, START = 3_600_000, 1_600_000_000_000


def opened() -> tuple[BehaviourFunction, Keyed]:
    operator, flink = BehaviourFunction(BehaviourOptions(), DriftOptions(), 30.0), Keyed()
    operator.open(flink)
    flink.key = "u"
    return operator, flink


def act(operator: BehaviourFunction, flink: Keyed, kind: str, hours: float, item: str | None = None) -> list[Any]:
    time_ms = START + round(hours * HOUR_MS)
    return list(operator.process_element(Row("u", f"{kind} {hours}", kind, item, None, None, time_ms), flink))


def carts(told: list[Any]) -> list[list[str]]:
    rows = [entry[1] for entry in told if isinstance(entry, tuple) and entry[0] is ABANDONED_CARTS]
    return [decode_behaviour(bytes(row[1]), AbandonedCart).items for row in rows]


def segments(told: list[Any]) -> list[str]:
    rows = [entry for entry in told if isinstance(entry, Row) and entry[1] is not None]
    return [decode_behaviour(bytes(row[1]), PersonSegment).segment for row in rows]


def test_a_busy_person_has_one_timer_and_time_tells_what_it_did() -> None:
    operator, flink = opened()
    for n in range(100):
        act(operator, flink, "view", n / 10, "i")
    act(operator, flink, "add_to_cart", 10, "a")
    assert len(flink.timers) == 1
    # All of it is past at once, as after a pause of the job.
    flink.watermark = START + 20 * DAY_MS
    told = flink.fired(operator, flink.watermark)
    assert (carts(told), segments(told)) == ([["a"]], ["regular", "lapsing"])
    assert flink.timers == set()


def test_a_cart_that_is_heard_of_too_late_is_told_a_minute_later_as_a_whole() -> None:
    operator, flink = opened()
    flink.watermark = START + 2 * HOUR_MS
    for item in "abc":
        assert carts(act(operator, flink, "add_to_cart", 0, item)) == []
    act(operator, flink, "purchase", 0.1, "b")
    assert carts(flink.fired(operator, flink.watermark + 60_000)) == [["a", "c"]]
    assert carts(flink.fired(operator, START + 20 * DAY_MS)) == []


def test_nothing_is_left_of_who_is_erased() -> None:
    operator, flink = opened()
    act(operator, flink, "add_to_cart", 0, "a")
    assert flink.timers
    assert act(operator, flink, "erase_user", 1) == [Row("u", None)]
    assert flink.timers == set()
    assert not any(flink.states.values())
    assert act(operator, flink, "erase_user", 1) == [Row("u", None)]


def test_a_person_kept_before_they_had_one_timer_gets_one() -> None:
    operator, flink = opened()
    act(operator, flink, "view", 0, "i")
    packed = flink.states["person"]["u"]
    fields = msgspec.msgpack.decode(packed[1:])
    flink.states["person"]["u"] = packed[:1] + msgspec.msgpack.encode(fields[:-1])
    assert unpack_person(flink.states["person"]["u"]).look_ms == Person().look_ms
    flink.timers = {("u", START + 1)}
    flink.fired(operator, START + 1)
    assert flink.timers == {("u", START + 7 * DAY_MS)}
