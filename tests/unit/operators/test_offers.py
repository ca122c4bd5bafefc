"""Campaigns that are not valid, and what is kept of people when one is over."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from pyflink.common import Row

from model.campaigns import DAY_MS
from operators.campaign_candidates import Candidate
from operators.campaign_fan_out import CampaignFanOutFunction
from operators.dead_letters import DEAD_LETTERS
from operators.offers import OffersFunction
from schema.campaign import decode_offer
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit
BEGIN = 1_767_225_600_000
FIELDS = {"from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "budget": 9, "cost": 1, "within_days": 1}


def opened() -> tuple[OffersFunction, Keyed]:
    operator, flink = OffersFunction("campaigns"), Keyed()
    operator.open(flink)
    flink.now = BEGIN
    return operator, flink


def put(operator: OffersFunction, flink: Keyed, key: str, campaign: dict[str, Any] | None) -> list[Any]:
    flink.key = key
    payload = None if campaign is None else json.dumps({"campaign_id": key, **campaign}).encode()
    return list(operator.process_element2(Row(key, payload, 3, 7), flink))


def did(operator: OffersFunction, flink: Keyed, key: str, user: str, time_ms: int) -> list[Any]:
    flink.key, flink.now = key, max(flink.now, time_ms)
    told = msgspec.msgpack.encode(Candidate("view", time_ms, "", {"views": 1.0}))
    return list(operator.process_element1(Row(user, told), flink))


def test_one_that_is_not_valid_is_a_dead_letter_and_the_one_before_it_stays() -> None:
    operator, flink = opened()
    assert put(operator, flink, "spring", FIELDS) == []
    before = dict(flink.states["campaign"])
    ((tag, row),) = put(operator, flink, "spring", {**FIELDS, "budget": "inf", "cost": -1})
    letter = json.loads(bytes(row[0]))
    assert tag is DEAD_LETTERS
    assert (letter["error"], letter["topic"], letter["partition"], letter["offset"]) == (
        "bad_campaign",
        "campaigns",
        3,
        7,
    )
    assert all(field in letter["message"] for field in ("budget", "cost"))
    assert flink.states["campaign"] == before
    assert put(operator, flink, "", FIELDS)[0][0] is DEAD_LETTERS


def test_people_are_forgotten_when_the_outcome_of_the_last_offer_is_known_and_the_budget_is_not() -> None:
    operator, flink = opened()
    put(operator, flink, "spring", FIELDS)
    for n in range(2000):
        did(operator, flink, "spring", f"u{n}", BEGIN + DAY_MS // 2 + n)
    spent = flink.states["budget"]["spring"]
    tried = len(flink.states["members"]["spring"])
    assert tried > 9
    assert flink.fired(operator, BEGIN + 2 * DAY_MS - 1) == []
    assert flink.states["members"]["spring"]
    flink.fired(operator, BEGIN + 2 * DAY_MS)
    assert not flink.states["members"].get("spring")
    flink.key = "spring"
    (model,) = operator._models["spring"].values()
    assert sum(model.people) == tried
    assert flink.states["budget"]["spring"] == spent
    put(operator, flink, "spring", None)
    assert not flink.states["uplift"]
    assert not operator._models


def test_each_person_gets_the_offer_that_they_follow() -> None:
    operator, flink = opened()
    both = {"code": {"cost": 1}, "post": {"cost": 1}}
    fields = {"until": "2026-03-01T00:00:00Z", "budget": 1e6, "offers": both, "within_days": 0.5, "holdout": 0.0}
    put(operator, flink, "spring", {"from": FIELDS["from"], **fields})
    got = Counter[tuple[str, str]]()
    for n in range(3000):
        user, kind = f"u{n}", "near" if n % 2 else "far"
        at = BEGIN + DAY_MS + n * 300_000
        told = Candidate("view", at, "", {"lives": kind})
        flink.key, flink.now = "spring", at + 1000
        rows = list(operator.process_element1(Row(user, msgspec.msgpack.encode(told)), flink))
        for row in (row for row in rows if isinstance(row, Row)):
            offer = decode_offer(row[1])
            if n > 2000 and offer.uplift is not None:
                got[kind, offer.name or ""] += 1
            if offer.name == ("code" if kind == "near" else "post"):
                bought = Candidate("purchase", at + 1000, "", {"lives": kind})
                list(operator.process_element1(Row(user, msgspec.msgpack.encode(bought)), flink))
    for kind, name in (("near", "code"), ("far", "post")):
        assert got[kind, name] > 0.8 * sum(count for (of, _), count in got.items() if of == kind) > 100


@pytest.mark.parametrize(
    ("until", "first", "last"),
    [
        # It was made longer.
        ("2026-01-05T00:00:00Z", 2, 5),
        # The job was away, and hears of outcomes first.
        (FIELDS["until"], 4, 6),
    ],
)
def test_nobody_is_forgotten_before_outcomes_are_heard_of(until: str, first: int, last: int) -> None:
    operator, flink = opened()
    put(operator, flink, "spring", FIELDS)
    did(operator, flink, "spring", "u", BEGIN + DAY_MS // 2)
    put(operator, flink, "spring", {**FIELDS, "until": until})
    for day, forgotten in ((first, False), (last, True)):
        flink.now = BEGIN + day * DAY_MS
        flink.fired(operator, flink.now)
        assert bool(flink.states["members"].get("spring")) is not forgotten
    assert flink.timers == set()


def test_one_that_was_taken_by_other_rules_rests() -> None:
    operator, flink = opened()
    flink.states["campaign"]["old"] = json.dumps({"campaign_id": "old", **FIELDS, "every_days": 36_500}).encode()
    assert did(operator, flink, "old", "u", BEGIN + DAY_MS // 2) == []
    told = CampaignFanOutFunction()
    told.open(flink)
    flink.key = 0
    flink.states["campaigns"][0] = {"old": flink.states["campaign"]["old"]}
    assert list(told.process_element2(Row("old", None, 0, 1), flink)) == []
    put(operator, flink, "old", FIELDS)
    did(operator, flink, "old", "u", BEGIN + DAY_MS // 2)
    assert flink.states["members"]["old"]
