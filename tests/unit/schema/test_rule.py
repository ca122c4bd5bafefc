"""Rules: what is valid is kept to the letter, and what is not is refused with every fault."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schema.errors import MessageError
from schema.review import Decision, Review, decode_review, encode_decision, encode_review, parse_decision
from schema.rule import now_in, parse_rule

pytestmark = pytest.mark.unit


def raw(**fields: Any) -> bytes:
    return json.dumps({"rule_id": "r", "action": "filter", **fields}).encode()


def test_a_rule_holds_between_its_moments() -> None:
    rule_id, rule = parse_rule("r", raw(**{"from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00+01:00"}))
    assert rule_id == "r"
    assert rule is not None
    assert not rule.holds_at(datetime(2025, 12, 31, 23, 59, tzinfo=UTC))
    assert rule.holds_at(datetime(2026, 1, 1, tzinfo=UTC))
    assert not rule.holds_at(datetime(2026, 1, 31, 23, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"items": "item.prise < 5.0"}, ["prise"]),
        ({"items": "item.price <"}, ["Syntax error"]),
        ({"items": "item.price + 1.0"}, ["float, not true or false"]),
        ({"when": "item.price > 1.0"}, ["item"]),
        ({"when": "person.segment"}, ["int, not true or false"]),
        ({"action": "cap"}, ["cap needs by", "cap needs at_most"]),
        ({"action": "boost", "amount": 2.0, "position": 1}, ["less than or equal to 1", "boost takes no position"]),
        ({"action": "pin", "share": 0.5, "x": 1, "timezone": "Mars"}, ["pin needs position", "takes no share", "Mars"]),
        ({"from": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, ["from must come before until"]),
        ({"from": "2026-02-01T00:00:00"}, ["from"]),
        ({"action": "explode"}, ["filter"]),
        ({"items": " + ".join(["item.price"] * 2000) + " > 0.0"}, ["at most 1000"]),
        ({"items": "[1].all(a, [1].all(b, [1].all(c, true)))"}, ["more than twice"]),
        ({"action": "cap", "by": "brand", "at_most": 10**30}, ["at_most"]),
        ({"rule_id": ""}, ["rule_id"]),
    ],
)
def test_a_faulty_rule_is_refused_with_every_fault(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(MessageError) as refused:
        parse_rule(None, raw(**fields))
    assert refused.value.code == "bad_rule"
    assert [word for word in said if word not in refused.value.reason] == []


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"1", b"\xff", b'{"rule_id": NaN}', b"[" * 100_000])
def test_what_is_no_rule_at_all_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        parse_rule("r", payload)


def test_a_rule_is_taken_back_by_its_key() -> None:
    assert parse_rule("r", None) == parse_rule("r", b"null") == ("r", None)
    for key, payload in ((None, None), ("other", raw())):
        with pytest.raises(MessageError):
            parse_rule(key, payload)


def test_the_hour_is_that_of_the_rule_s_place() -> None:
    moment = int(datetime(2026, 6, 30, 22, 30, tzinfo=UTC).timestamp() * 1000)
    assert now_in("Europe/Berlin", moment) == {"hour": 0, "minute": 30, "weekday": 3, "date": "2026-07-01"}
    assert now_in("UTC", moment) == {"hour": 22, "minute": 30, "weekday": 2, "date": "2026-06-30"}


def test_reviews_and_decisions_come_back_as_they_were_encoded() -> None:
    review, decision = Review("i", "Item", ["r"], 1), Decision("i", "allow", by="anna")
    assert decode_review(encode_review(review)) == review
    assert parse_decision("i", encode_decision(decision)) == ("i", decision)
    assert parse_decision("i", None) == ("i", None)
    for key, payload in ((None, None), ("j", encode_decision(decision)), (None, b'{"item_id":"i","decision":"burn"}')):
        with pytest.raises(MessageError):
            parse_decision(key, payload)
