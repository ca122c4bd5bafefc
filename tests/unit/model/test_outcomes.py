"""Outcomes of experiments: the sums over people are those of a recount, in whatever order lists and events come."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.experiment_statistics import Moments
from model.outcomes import (
    Member,
    Outcomes,
    Sums,
    Tally,
    count,
    pack,
    results,
    show,
    take,
    unpack_member,
    unpack_outcomes,
    unpack_tally,
)
from schema.event import Event
from schema.experiment import Experiment, parse_experiment

pytestmark = pytest.mark.unit


def experiment(**fields: Any) -> Experiment:
    arms = {"a": {"share": 0.5}, "b": {"share": 0.5}}
    given = {"experiment_id": "e", "arms": arms, "control": "a", "metric": {"outcome": "spend", "cap": 30}, **fields}
    found = parse_experiment("e", json.dumps(given).encode())[1]
    assert found is not None
    return found


def event(number: int, kind: str = "purchase", price: float = 10.0, user: str = "u") -> Event:
    return Event(f"e{number}", user, kind, number, "i", price=price)


kinds = st.sampled_from(["list", "purchase", "view", "again"])
steps = st.lists(st.tuples(st.integers(0, 3), kinds, st.integers(1, 20)), max_size=60)


def told(tally: Tally, members: dict[str, Any], change: Any, one: Experiment) -> None:
    """As the operator does it."""
    member = count(tally, members.get(change.user_id), change, one)
    if member is not None:
        members[change.user_id] = unpack_member(pack(member))


@settings(max_examples=60, deadline=None)
@given(steps)
def test_sums_are_those_of_a_recount(given: list[tuple[int, str, int]]) -> None:
    people, tally, one = [Outcomes() for _ in range(4)], Tally(), experiment()
    members: dict[str, Any] = {}
    joined: dict[int, float] = {}
    before, after = [0.0] * 4, [0.0] * 4
    for number, (person, kind, price) in enumerate(given):
        people[person] = unpack_outcomes(pack(people[person]))
        if kind == "list":
            changes = show(people[person], f"u{person}", {"e": "ab"[person % 2]}, number)
            joined.setdefault(person, before[person])
        else:
            taken = event(number, "view" if kind == "view" else "purchase", price, f"u{person}")
            changes = take(people[person], taken, number)
            if kind == "again":
                assert take(people[person], taken, number) == []
            if kind != "view":
                (after if person in joined else before)[person] += price
        for _, change in changes:
            told(tally, members, change, one)
        tally = unpack_tally(pack(tally))
    for name in "ab":
        expected = Moments()
        for person, known in joined.items():
            if "ab"[person % 2] == name:
                expected.add(min(after[person], 30.0), min(known, 30.0))
        found = tally.arms.get(name, Moments())
        assert [found.n, found.y, found.yy, found.x, found.xx, found.xy] == pytest.approx(
            [expected.n, expected.y, expected.yy, expected.x, expected.xx, expected.xy]
        )


@given(st.lists(st.integers(0, 20), max_size=8, unique=True), st.integers(0, 20))
def test_what_is_heard_of_before_the_list_but_came_after_it_is_an_outcome(times: list[int], shown: int) -> None:
    person, tally, members, one = Outcomes(), Tally(), {}, experiment(metric={"outcome": "count"})
    changes = [change for time in times for _, change in take(person, event(time), time)]
    changes += [change for _, change in show(person, "u", {"e": "a"}, shown)]
    # Again, as with every list.
    changes += [change for _, change in show(person, "u", {"e": "a"}, shown)]
    for change in changes:
        told(tally, members, change, one)
    after = sum(time > shown for time in times)
    found = tally.arms["a"]
    assert (found.n, found.y, found.x) == (1, after, len(times) - after)


def test_an_experiment_that_begins_anew_counts_from_then_on() -> None:
    person, one = Outcomes(), experiment()
    for number in range(3):
        for _, change in [*take(person, event(number), number), *show(person, "u", {"e": "b"}, number)]:
            told(Tally(), {}, change, one)
    tally, members = Tally(), {}
    for _, change in take(person, event(7, price=4.0), 7):
        told(tally, members, change, one)
    found = tally.arms["b"]
    assert (found.n, found.y, found.x) == (1, 4.0, 30.0)
    # Of another arm, and of one that is stopped, nothing is counted.
    told(tally, {}, show(person, "v", {"e": "c"}, 8)[0][1], one)
    told(tally, {}, show(person, "w", {"e": "b"}, 8)[0][1], experiment(stopped=["b"]))
    assert {name: sums.n for name, sums in tally.arms.items()} == {"b": 1}


def test_who_is_in_an_experiment_no_more_is_remembered_there_until_they_are_erased() -> None:
    person = Outcomes()
    show(person, "u", {"e": "a"}, 1)
    assert show(person, "u", {"f": "b"}, 2)[0][0] == "f"
    assert person.arms == {"e": "", "f": "b"}
    assert [name for name, _ in take(person, event(1), 3)] == ["f"]


def simulated(effect: float, sizes: tuple[int, int] = (2000, 2000), **fields: Any) -> Any:
    chance, tally, one = random.Random(1), Tally(), experiment(metric={"outcome": "conversion"}, **fields)
    number = 0
    # What is stopped was counted before.
    counted = one.model_copy(update={"stopped": []})
    for arm, size in zip("ab", sizes, strict=True):
        for _ in range(size):
            person, members = Outcomes(), {}
            changes = show(person, "u", {"e": arm}, 0)
            if chance.random() < 0.1 + effect * (arm == "b"):
                number += 1
                changes += take(person, event(number), number)
            for _, change in changes:
                told(tally, members, change, counted)
    return results(tally, one, 7)


def test_results_say_what_is_there_and_when_sizes_are_wrong() -> None:
    found, harms = simulated(0.1)
    assert (found.arms["a"].people, found.arms["b"].people, found.at) == (2000, 2000, 7)
    assert found.arms["b"].low > 0
    assert found.arms["b"].p_value < 0.05
    assert not found.sample_ratio_mismatch
    assert harms == []
    assert simulated(0.0, sizes=(2000, 1500))[0].sample_ratio_mismatch
    # Nobody joins what is stopped.
    assert not simulated(0.0, sizes=(2000, 1500), stopped=["b"])[0].sample_ratio_mismatch
    few, _ = simulated(0.1, sizes=(90, 90))
    assert (few.arms["b"].low, few.arms["b"].p_value) == (0.0, 1.0)


def test_an_arm_whose_guard_is_worse_is_to_stop_once() -> None:
    guard = {"event_type": "purchase", "outcome": "conversion"}
    for harm, effect, expected in (
        ("less", -0.08, ["b"]),
        ("more", -0.08, []),
        ("more", 0.1, ["b"]),
        ("less", 0.0, []),
    ):
        found, harms = simulated(effect, guard=guard, guard_harm=harm)
        assert [one.arm for one in harms] == expected
        assert found.arms["b"].guard_low is not None
    _, harms = simulated(-0.08, guard=guard, stopped=["b"])
    assert harms == []


def test_another_version_is_refused() -> None:
    member = Member(Sums(), Sums())
    for unpack, state in ((unpack_outcomes, Outcomes()), (unpack_tally, Tally()), (unpack_member, member)):
        with pytest.raises(ValueError, match="version 9"):
            unpack(b"\x09" + pack(state)[1:])
