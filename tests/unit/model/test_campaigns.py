"""Campaigns: never over budget, evenly spent through a spike, and who gets an offer by chance that is told."""

import json
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.campaigns import (
    DAY_MS,
    Budget,
    Member,
    affordable,
    decide,
    eligible,
    pack,
    unpack_budget,
    unpack_member,
)
from schema.campaign import Campaign, Offer, decode_offer, encode_campaign, encode_offer, parse_campaign
from schema.errors import MessageError

pytestmark = pytest.mark.unit


def campaign(**fields: Any) -> Campaign:
    given = {
        "campaign_id": "c",
        "from": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "budget": 100.0,
        "cost": 1.0,
        **fields,
    }
    found = parse_campaign("c", json.dumps(given).encode())[1]
    assert found is not None
    return found


BEGIN = campaign().begin_ms


def day(spike: bool, seed: int = 1) -> list[int]:
    """Times of 4,000 visits over a day; with a spike three times as many an hour for three hours."""
    chance = random.Random(seed)
    hours = [3.0 if spike and 10 <= hour < 13 else 1.0 for hour in range(24)]
    chosen = chance.choices(range(24), hours, k=4000)
    return sorted(BEGIN + int((hour + chance.random()) * DAY_MS / 24) for hour in chosen)


def spent_over(one: Campaign, times: list[int]) -> tuple[Budget, list[Offer]]:
    budget, offers, chance = Budget(), [], random.Random(2)
    for n, time in enumerate(times):
        member = Member()
        assert eligible(one, member, "", time)
        _, offer = decide(one, budget, member, f"u{n}", {name: chance.gauss(0, 1) for name in one.priced}, time)
        offers += [offer] if offer else []
        assert budget.spent <= one.budget
    return budget, offers


@pytest.mark.parametrize("spike", [False, True])
@pytest.mark.parametrize("budget", [20.0, 100.0, 1000.0])
def test_a_day_s_budget_is_spent_within_five_per_cent_and_evenly_through_a_spike(spike: bool, budget: float) -> None:
    one = campaign(budget=budget)
    found, offers = spent_over(one, day(spike))
    assert 0.95 * budget <= found.spent <= budget
    by_noon = sum(offer.at < BEGIN + DAY_MS // 2 for offer in offers)
    assert 0.4 * budget <= by_noon <= 0.53 * budget
    assert [offer.number for offer in offers] == list(range(1, len(offers) + 1))


def test_while_offers_are_scarce_they_go_to_those_to_whom_they_add_most() -> None:
    _, offers = spent_over(campaign(budget=100.0), day(spike=False))
    aimed = [offer for offer in offers if offer.propensity > 0.5]
    assert len(aimed) > 60
    assert sum(offer.uplift or 0 for offer in aimed) / len(aimed) > 1


def test_the_propensity_is_how_often_it_happens_and_the_held_out_never_get_one() -> None:
    one, counts = campaign(budget=1e6, explore=0.2, holdout=0.3), {0.8: [0, 0], 0.2: [0, 0]}
    without = 0
    for n in range(20_000):
        budget, member = Budget(bar=0.5, scores=[0.5] * 100), Member()
        uplift = float(n % 2)
        tried, offer = decide(one, budget, member, f"u{n}", {"": uplift}, BEGIN + DAY_MS // 2)
        assert tried is not None
        assert (tried.at, tried.treated, tried.uplift) == (BEGIN + DAY_MS // 2, offer is not None, uplift)
        assert tried.propensity == pytest.approx(0 if tried.held_out else 0.8 if uplift else 0.2)
        without += tried.held_out
        counts[0.8 if uplift else 0.2][0] += offer is not None
        counts[0.8 if uplift else 0.2][1] += 1
        if offer:
            assert offer.propensity == pytest.approx(0.8 if uplift else 0.2)
    for propensity, (offers, tries) in counts.items():
        assert offers / tries == pytest.approx(0.7 * propensity, abs=0.015)
    assert without / 20_000 == pytest.approx(0.3, abs=0.015)
    undecided, _ = decide(one, Budget(), Member(), "u3", {"": None}, BEGIN + DAY_MS // 2)
    assert undecided is not None
    assert undecided.held_out or undecided.propensity == 0.5
    nothing_left = Budget(spent=1e6)
    assert decide(one, nothing_left, Member(), "u3", {"": None}, BEGIN + DAY_MS // 2) == (None, None)


def several(**fields: Any) -> Campaign:
    return campaign(
        **({"cost": None, "offers": {"ten": {"cost": 1}, "free": {"cost": 4, "offer": {"code": "F"}}}} | fields)
    )


def test_of_several_offers_a_person_gets_mostly_the_one_that_adds_most_for_its_cost() -> None:
    one, made, tries = several(budget=1e6, explore=0.2, holdout=0.0), Counter[str | None](), 4000
    for n in range(tries):
        budget = Budget(bar=0.5, scores=[0.0] * 100)
        tried, offer = decide(one, budget, Member(), f"u{n}", {"ten": 0.2, "free": 0.7}, BEGIN + DAY_MS // 2)
        assert tried is not None
        assert tried.propensities == pytest.approx({"ten": 0.8 * 0.8, "free": 0.8 * 0.2})
        assert tried.propensity == pytest.approx(0.8)
        assert tried.name == (offer.name if offer else None)
        made[tried.name] += 1
        if offer and offer.name:
            assert offer.propensity == tried.propensities[offer.name]
            assert offer.spent == budget.spent == one.offers[offer.name].cost
            assert (offer.uplift, offer.offer) == ((0.7, {"code": "F"}) if offer.name == "free" else (0.2, {}))
    for name, chance in (("ten", 0.64), ("free", 0.16), (None, 0.2)):
        assert made[name] / tries == pytest.approx(chance, abs=0.03)
    dear, _ = decide(one, Budget(scores=[0.0]), Member(), "u", {"ten": 0.1, "free": 0.7}, BEGIN + DAY_MS // 2)
    assert dear is not None
    assert dear.propensities["free"] > 0.6


def test_offers_of_which_little_is_known_take_their_turns_first() -> None:
    one = several(budget=1e6, holdout=0.0)
    for uplifts, chances in (
        ({"ten": None, "free": None}, {"ten": 0.25, "free": 0.25}),
        ({"ten": 0.9, "free": None}, {"free": 0.5}),
    ):
        tried, _ = decide(one, Budget(), Member(), "u", uplifts, BEGIN + DAY_MS // 2)
        assert tried is not None
        assert (tried.propensities, tried.uplift) == (chances, None)


@pytest.mark.parametrize("spike", [False, True])
def test_several_offers_spend_a_day_s_budget_evenly_too_and_the_dear_one_has_its_turns(spike: bool) -> None:
    one = several(budget=200.0)
    found, offers = spent_over(one, day(spike))
    assert 0.95 * 200 <= found.spent <= 200
    spent = Counter[str | None]()
    for offer in offers:
        spent[offer.name] += one.offers[offer.name or ""].cost
    assert spent.total() == found.spent == offers[-1].spent
    assert spent["free"] > 10


def test_who_may_get_one() -> None:
    one = campaign(segments=["loyal"], every_days=0.25, within_days=0.1, per_person=2)
    assert not eligible(one, Member(), "new", BEGIN)
    assert not eligible(one, Member(), "loyal", BEGIN - 1)
    assert not eligible(one, Member(), "loyal", one.end_ms)
    assert eligible(one, Member(), "loyal", BEGIN)
    assert not eligible(one.model_copy(update={"price_sensitive": True}), Member(), "loyal", BEGIN)
    assert eligible(one.model_copy(update={"price_sensitive": True}), Member(), "loyal", BEGIN, True)
    assert not eligible(one.model_copy(update={"price_sensitive": False}), Member(), "loyal", BEGIN, True)
    assert not eligible(one, Member(tried_ms=BEGIN), "loyal", BEGIN + DAY_MS // 4 - 1)
    assert eligible(one, Member(tried_ms=BEGIN), "loyal", BEGIN + DAY_MS // 4)
    assert not eligible(one, Member(offered_ms=[1, 2]), "loyal", BEGIN)
    # Not while the outcome of the last try is to come.
    long = campaign(every_days=0.1, within_days=0.5)
    assert not eligible(long, Member(tried_ms=BEGIN), "", BEGIN + DAY_MS // 4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 3), st.lists(st.integers(-1000, DAY_MS + 1000), max_size=200))
def test_no_order_of_events_and_no_restart_spends_too_much(cost: float, times: list[int]) -> None:
    one, budget = campaign(budget=5.0, cost=cost, holdout=0.0), Budget()
    for n, time in enumerate(times):
        budget = unpack_budget(pack(budget))
        if eligible(one, Member(), "", BEGIN + time):
            decide(one, budget, Member(), f"u{n}", {"": 1.0}, BEGIN + time)
    assert budget.spent <= 5.0 + 1e-9
    assert budget.spent == pytest.approx(budget.offers * cost)
    assert affordable(one, Budget(), one.end_ms)


def test_states_and_messages_come_back() -> None:
    member, one = Member([1], 2, True, {"a": 1.0}, False, "ten"), campaign(offer={"code": "X"})
    assert unpack_member(pack(member)) == member
    # As they were before campaigns had several offers.
    before = bytes((1,)) + msgspec.msgpack.encode(([1], 2, True, {"a": 1.0}, False))
    assert unpack_member(before) == Member([1], 2, True, {"a": 1.0})
    for told in (one, several()):
        assert parse_campaign(None, encode_campaign(told)) == ("c", told)
    assert parse_campaign("c", None) == ("c", None)
    offer = Offer("u", "c", 1, 2, 0.5, None, {"code": "X"})
    assert decode_offer(encode_offer(offer)) == offer
    for unpack in (unpack_budget, unpack_member):
        with pytest.raises(ValueError, match="version 9"):
            unpack(b"\x09")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"until": "2025-01-01T00:00:00Z", "cost": 200.0}, ["from must come before until", "cost must not exceed"]),
        ({"budget": -1.0, "holdout": 1.0, "colour": 1}, ["budget", "holdout", "colour"]),
        ({"campaign_id": "other"}, ["key"]),
        ({"offers": {"ten": {"cost": 1}}, "offer": {"code": "X"}}, ["either cost or offers", "no offer beside offers"]),
        ({"cost": None, "budget": -1}, ["budget", "either cost or offers"]),
        ({"cost": None, "offers": {"ten": {"cost": 101}}}, ["cost must not exceed"]),
        ({"cost": None}, ["either cost or offers"]),
        ({"cost": None, "offers": {"": {"cost": 0}}}, ["offers"]),
    ],
)
def test_a_faulty_campaign_is_refused_with_its_faults(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(MessageError) as refused:
        campaign(**fields)
    assert [word for word in said if word not in refused.value.reason] == []
