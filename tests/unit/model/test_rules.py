"""Rules on lists: nothing forbidden, pins exact, shares within one item, caps kept, whatever order and rules are."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.item_index import ItemIndex
from model.rules import InForce, People, Rules, attributes_of
from model.snapshot import Snapshot
from schema.item import Item
from schema.rule import Rule, parse_rule

pytestmark = pytest.mark.unit
NOW = 1_780_000_000_000
ITEMS, K = 40, 10
CATALOGUE = [
    Item(
        f"i{n}",
        title=f"Item {n}",
        category=[f"c{n % 4}", f"d{n}"],
        brand=f"b{n % 3}",
        price=float(n),
        attributes={"colour": "red"} if n % 2 else None,
    )
    for n in range(ITEMS)
]


def people(*ids: str, segments: Sequence[int] = (), events: Sequence[int] = (), **last: Any) -> People:
    """Those, of taste segment 2 and with 7 events where nothing else is said."""
    snapshots = [
        Snapshot(user, "e", NOW, NOW, [], [], profile_version=count, **last)
        for user, count in zip(ids, events or [7] * len(ids), strict=True)
    ]
    return People(snapshots, segments or [2] * len(ids), [{}] * len(ids))


ANNA = people("anna")


def rule(rule_id: str = "r", **fields: Any) -> Rule:
    parsed = parse_rule(None, json.dumps({"rule_id": rule_id, **fields}).encode())[1]
    assert parsed is not None
    return parsed


def rules_of(*given: Rule) -> Rules:
    rules, index = Rules(), ItemIndex(item.item_id for item in CATALOGUE)
    rules.resize(index)
    for row, item in enumerate(CATALOGUE):
        rules.follow(row, attributes_of(item))
    for one in given:
        rules.put(one.rule_id, one)
    return rules


def held(rules: Rules, people: People = ANNA) -> InForce:
    found = rules.in_force(NOW, people)
    assert found is not None
    return found


def listed(rules: Rules, order: list[int], drawn: tuple[int, ...] = ()) -> tuple[list[int], list[list[str]]]:
    """The rows on Anna's list of the order, and which rules touched each."""
    force, items = held(rules), np.array([order])
    rules.forbid(force, items)
    columns = np.where(items >= 0, np.arange(len(order)), -1)
    by_chance = np.isin(np.arange(len(order)), drawn)[None]
    columns, _ = rules.boosted(force, items, columns, np.full(columns.shape, 0.01, np.float32))
    filled = rules.fill(force, items, columns, by_chance, K)
    places = [place for place in filled.places[0].tolist() if place >= 0]
    names = [
        [one.rule_id for one, hit in zip(force.rules, filled.touched[:, 0, n], strict=True) if hit]
        for n in range(len(places))
    ]
    return [order[columns[0, place]] for place in places], names


IN_ORDER = list(range(ITEMS))


def test_each_action_does_what_it_says() -> None:
    assert listed(rules_of(rule(action="filter", items="item.brand == 'b0'")), IN_ORDER)[0][:4] == [1, 2, 4, 5]
    found, names = listed(rules_of(rule(action="pin", position=3, item_ids=["i30"])), IN_ORDER)
    assert found == [0, 1, 30, 2, 3, 4, 5, 6, 7, 8]
    assert names == [["r"] if n == 2 else [] for n in range(K)]
    found, names = listed(rules_of(rule(action="boost", amount=0.5, items="item.price >= 38.0")), IN_ORDER)
    assert (found[:3], names[:3]) == ([38, 39, 0], [["r"], ["r"], []])
    found, _ = listed(rules_of(rule(action="boost", amount=-1.0, items="item.price < 38.0")), IN_ORDER)
    assert found[:3] == [38, 39, 0]
    found, names = listed(rules_of(rule(action="share", share=0.2, items="item.price >= 35.0")), IN_ORDER)
    assert (found, [n for n, touched in enumerate(names) if touched]) == ([0, 1, 2, 3, 35, 4, 5, 6, 7, 36], [4, 9])
    found, _ = listed(rules_of(rule(action="share", share=0.2, items="item.price < 30.0")), IN_ORDER)
    assert found == [0, 1, *range(30, 38)]
    found, _ = listed(rules_of(rule(action="cap", by="category", at_most=1)), IN_ORDER)
    assert found == [0, 1, 2, 3]
    found, _ = listed(rules_of(rule(action="cap", by="brand", at_most=0, items="item.brand != 'b1'")), IN_ORDER)
    assert found == [1 + 3 * n for n in range(K)]
    found, _ = listed(rules_of(rule(action="at_least", at_least=3, items="item.price > 36.0")), IN_ORDER)
    assert found == [*range(7), 37, 38, 39]


def test_what_was_drawn_by_chance_keeps_its_place_where_no_rule_wants_it() -> None:
    order = [*range(9), 25, 9, *range(10, 20)]
    assert listed(rules_of(rule(action="boost", amount=0.1, item_ids=["i99"])), order, (9,))[0][9] == 25
    assert listed(rules_of(rule(action="pin", position=1, item_ids=["i19"])), order, (9,))[0] == [19, *range(8), 25]
    assert 25 not in listed(rules_of(rule(action="at_least", at_least=10, items="item.price < 20.0")), order, (9,))[0]


def test_an_expression_asks_for_what_an_item_has_and_one_that_lacks_it_is_not_meant() -> None:
    rules = rules_of(
        rule("red", action="filter", items="has(item.attributes.colour) && item.attributes.colour == 'red'"),
        rule("deep", action="filter", items="'d2' in item.category || item.title.contains('12')"),
    )
    assert listed(rules, IN_ORDER)[0] == [0, 4, 6, 8, 10, 14, 16, 18, 20, 22]


def test_a_rule_holds_for_those_whom_it_means_and_when() -> None:
    rules = rules_of(
        rule("segment", action="filter", when="person.segment == 2 && person.events > 5"),
        rule("later", action="filter", **{"from": "2099-01-01T00:00:00Z"}),
        rule("hour", action="filter", when="now.hour < 0"),
    )
    force = held(rules, people("anna", "bert", "carl", segments=[2, 1, 2], events=[7, 7, 3]))
    assert [one.rule_id for one in force.rules] == ["segment"]
    assert force.lists.tolist() == [[True, False, False]]
    assert rules.in_force(NOW, people("bert", segments=[1])) is None
    items = np.array([[0, 1], [0, 1], [0, -1]])
    rules.forbid(force, items)
    assert items.tolist() == [[-1, -1], [0, 1], [0, -1]]


@pytest.mark.parametrize(
    "when",
    [
        "person.behaviour == 'loyal' && person.price_sensitive",
        "event.type == 'view' && has(event.properties.page) && event.properties.page == 'cart'",
        "has(event.properties.depth) && event.properties.depth > 1.5",
    ],
)
def test_a_rule_may_ask_for_behaviour_and_for_what_the_newest_event_says(when: str) -> None:
    rules = rules_of(rule(action="filter", when=when))
    told: dict[str, Any] = {"page": "cart", "depth": 2.0}
    last = {"behaviour": "loyal", "price_sensitive": True, "event_type": "view", "properties": told}
    assert rules.in_force(NOW, people("anna", **last)) is not None
    assert rules.in_force(NOW, people("anna")) is None


def test_precedence_is_by_priority_then_by_id() -> None:
    pins = [rule(name, action="pin", position=1, item_ids=[f"i{row}"]) for name, row in (("b", 20), ("a", 21))]
    assert listed(rules_of(*pins), IN_ORDER)[0][0] == 21
    assert (
        listed(rules_of(*pins, rule("c", action="pin", position=1, item_ids=["i22"], priority=1)), IN_ORDER)[0][0] == 22
    )


def test_what_waits_for_a_decision_is_off_lists_and_changes_are_told_once() -> None:
    rules = rules_of(rule("look", action="review", items="item.price < 2.0"))
    assert rules.review(NOW) == {"i0": ("Item 0", ["look"]), "i1": ("Item 1", ["look"])}
    assert rules.review(NOW) == {}
    assert listed(rules, IN_ORDER)[0][0] == 2
    rules.decide("i0", True)
    rules.decide("i5", False)
    assert rules.review(NOW) == {"i0": None}
    assert listed(rules, IN_ORDER)[0][:5] == [0, 2, 3, 4, 6]
    rules.decide("i5", None)
    rules.put("look", None)
    rules.put("other", rule("other", action="boost", amount=0.1, item_ids=["i99"]))
    assert rules.review(NOW) == {"i1": None}
    assert listed(rules, IN_ORDER)[0] == list(range(K))


def test_what_no_list_may_hold_is_told_once_and_over_a_restart_and_forgetting() -> None:
    rules = rules_of(
        rule("never", action="filter", items="item.price < 2.0"),
        rule("look", action="review", item_ids=["i5", "i6"]),
        rule("some", action="filter", item_ids=["i7"], when="person.segment == 2"),
        rule("later", action="filter", item_ids=["i8"], **{"from": "2099-01-01T00:00:00Z"}),
    )
    rules.decide("i6", True)
    rules.decide("i9", False)
    assert rules.newly_forbidden(NOW) == dict.fromkeys(["i0", "i1", "i5", "i9"], True)
    assert rules.newly_forbidden(NOW) == {}
    assert rules.newly_forbidden(5 * 10**12) == {"i8": True}
    rules.follow(0, attributes_of(Item("i0", price=7.0)))
    rules.put("later", None)
    assert rules.newly_forbidden(NOW) == {"i0": False, "i8": False}

    # Somebody who starts again knows what was told, and tells what came to an end meanwhile.
    after = rules_of(rule("never", action="filter", item_ids=["i0"]))
    after.told({}, ["i1", "i5", "i0", "gone"])
    assert after.newly_forbidden(NOW) == {"i1": False, "i5": False}
    after.resize(ItemIndex([*(item.item_id for item in CATALOGUE), "gone"]))
    assert after.newly_forbidden(NOW) == {"gone": False}

    # What is forgotten stays told until it comes back.
    rules.retain(np.array([5, 20]), ItemIndex(["i5", "i20"]))
    assert rules.newly_forbidden(NOW) == {}
    rules.decide("i9", None)
    rules.resize(ItemIndex(["i5", "i20", "i9", "i1"]))
    assert rules.newly_forbidden(NOW) == {"i9": False}
    assert rules.nowhere.tolist() == [True, False, False, True]


def test_rules_follow_the_catalogue_and_forget_with_it() -> None:
    rules = rules_of(rule(action="filter", items="item.brand == 'b1'"), rule("c", action="cap", by="brand", at_most=2))
    assert listed(rules, IN_ORDER)[0] == [0, 2, 3, 5]
    rules.follow(0, attributes_of(Item("i0", brand="b1")))
    rules.follow(1, attributes_of(Item("i1", brand="b9")))
    assert listed(rules, IN_ORDER)[0] == [1, 2, 3, 5, 6]
    rules.retain(np.array([1, 4, 5]), ItemIndex(["i1", "i4", "i5"]))
    assert listed(rules, [0, 1, 2])[0] == [0, 2]
    rules.resize(ItemIndex(["i1", "i4", "i5", "new"]))
    assert listed(rules, [0, 1, 2, 3])[0] == [0, 2, 3]


def test_candidates_that_rules_want_are_the_most_popular_of_theirs_on_the_lists_that_they_are_for() -> None:
    rules = rules_of(
        rule("pin", action="pin", position=1, items="item.price >= 10.0", when="person.segment == 2"),
        rule("f", action="filter", item_ids=["i38"]),
    )
    popularity, blocked = np.arange(ITEMS, dtype=np.float32), np.arange(ITEMS) == 39
    force = held(rules, people("anna", "bert", segments=[2, 1]))
    assert rules.wanted(force, popularity, blocked, K).tolist() == [list(range(14, 38)), [-1] * 24]
    assert rules.wanted(force, popularity, blocked, 26)[0].tolist() == list(range(12, 38))
    filtered = rules.blocked(force)
    assert filtered is not None
    assert np.flatnonzero(filtered).tolist() == [38]


def test_what_nothing_is_left_for_keeps_no_other_rule_from_what_it_wants() -> None:
    hopeless = rule("a", action="share", share=0.9, item_ids=["nobody has it"], priority=1)
    found, _ = listed(rules_of(hopeless, rule("b", action="share", share=0.5, items="item.price >= 20.0")), IN_ORDER)
    assert sum(row >= 20 for row in found) == 5


def test_an_item_that_was_forgotten_and_comes_back_is_what_it_was() -> None:
    rules = rules_of(rule(action="filter", items="item.brand == 'b1'"))
    rules.retain(np.array([0, 2]), ItemIndex(["i0", "i2"]))
    rules.resize(ItemIndex(["i0", "i2", "i1", "new"]))
    assert listed(rules, [0, 1, 2, 3])[0] == [0, 1, 3]


def test_a_rule_is_kept_as_it_was_sent_and_one_that_no_longer_holds_is_left_out() -> None:
    sent = b'{"rule_id": "r",  "action": "boost", "amount": 1, "from": 0, "items": "true"}'
    sent = sent.replace(b'"from": 0', b'"from": "2020-01-01T00:00:00Z"')
    rules = rules_of()
    rules.take("r", sent)
    rules.take("broken", b'{"rule_id": "broken", "action": "fly"}')
    assert rules.packed() == {"r": sent}
    rules.take("r", None)
    assert rules.packed() == rules.rules == {}


conditions = st.sampled_from(
    ["true", "item.brand == 'b0'", "item.price > 20.0", "'c1' in item.category", "item.id == 'i7'"]
)
actions = st.one_of(
    st.fixed_dictionaries({"action": st.just("filter"), "items": conditions.filter(lambda text: text != "true")}),
    st.fixed_dictionaries({"action": st.just("boost"), "items": conditions, "amount": st.floats(-1, 1)}),
    st.fixed_dictionaries({"action": st.just("pin"), "items": conditions, "position": st.integers(1, K)}),
    st.fixed_dictionaries({"action": st.just("share"), "items": conditions, "share": st.floats(0, 1)}),
    st.fixed_dictionaries(
        {
            "action": st.just("cap"),
            "items": conditions,
            "by": st.sampled_from(["category", "brand"]),
            "at_most": st.integers(0, 4),
        }
    ),
    st.fixed_dictionaries({"action": st.just("at_least"), "items": conditions, "at_least": st.integers(1, K)}),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(actions, min_size=1, max_size=5), st.permutations(IN_ORDER))
def test_whatever_the_rules_no_list_breaks_what_it_can_keep(given: list[dict[str, Any]], order: list[int]) -> None:
    made = [rule(f"r{n}", **fields) for n, fields in enumerate(given)]
    rules = rules_of(*made)
    force = held(rules)
    found, _ = listed(rules, order)
    meant = {one.rule_id: set(np.flatnonzero(of).tolist()) for one, of in zip(force.rules, force.items, strict=True)}
    forbidden = set().union(*(meant[one.rule_id] for one in made if one.action == "filter"))
    assert len(set(found)) == len(found)
    assert not forbidden & set(found)
    pins: dict[int, str] = {}
    for one in force.rules:
        if one.action == "pin" and one.position is not None:
            pins.setdefault(one.position, one.rule_id)
    if len(found) == K:
        free = set(order) - forbidden
        for position, rule_id in pins.items():
            # Each pin has an item of its own, unless others before it took all.
            if len(meant[rule_id] & free) >= len(pins):
                assert found[position - 1] in meant[rule_id]
    if not pins:
        for one in made:
            within = [row for row in found if row in meant[one.rule_id]]
            if one.action == "cap" and one.at_most is not None:
                for group in ("category", "brand"):
                    if one.by == group:
                        counts = np.bincount(rules.groups(group)[within]) if within else np.zeros(1)
                        assert counts.max() <= one.at_most
            if one.action == "share" and one.share is not None:
                assert len(within) <= one.share * K + 1
    if len(made) == 1 and made[0].share is not None and len(found) == K:
        within = [row for row in found if row in meant["r0"]]
        assert abs(len(within) - made[0].share * K) < 1 or len(meant["r0"]) < made[0].share * K


@settings(max_examples=30, deadline=None)
@given(st.lists(actions, min_size=1, max_size=4), st.lists(st.permutations(IN_ORDER), min_size=2, max_size=4))
def test_a_list_is_the_same_in_a_batch_as_alone(given: list[dict[str, Any]], orders: list[list[int]]) -> None:
    rules = rules_of(*(rule(f"r{n}", **fields) for n, fields in enumerate(given)))
    force, items = held(rules, people(*(f"p{n}" for n in range(len(orders))))), np.array(orders)
    rules.forbid(force, items)
    columns = np.where(items >= 0, np.arange(ITEMS), -1)
    columns, _ = rules.boosted(force, items, columns, np.full(columns.shape, 0.01, np.float32))
    filled = rules.fill(force, items, columns, np.zeros(columns.shape, np.bool_), K)
    for n, order in enumerate(orders):
        rows = [order[columns[n, place]] for place in filled.places[n].tolist() if place >= 0]
        assert rows == listed(rules, order)[0]
