"""Outcomes of experiments: the sums over people are those of a recount, in whatever order lists and events come."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.experiment_statistics import Moments
from model.outcomes import Outcomes, Tally, count, expose, pack, results, take, unpack_outcomes, unpack_tally
from schema.event import Event
from schema.experiment import Experiment, parse_experiment

pytestmark = pytest.mark.unit


def experiment(**fields: Any) -> Experiment:
    arms = {"a": {"share": 0.5}, "b": {"share": 0.5}}
    given = {"experiment_id": "e", "arms": arms, "control": "a", "metric": {"outcome": "spend", "cap": 30}, **fields}
    found = parse_experiment("e", json.dumps(given).encode())[1]
    assert found is not None
    return found


def event(number: int, kind: str = "purchase", price: float = 10.0) -> Event:
    return Event(f"e{number}", "u", kind, number, "i", price=price)


kinds = st.sampled_from(["list", "purchase", "view", "again"])
steps = st.lists(st.tuples(st.integers(0, 3), kinds, st.integers(1, 20)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_sums_are_those_of_a_recount(given: list[tuple[int, str, int]]) -> None:
    people, tally, one = [Outcomes() for _ in range(4)], Tally(), experiment()
    joined: dict[int, float] = {}
    before, after = [0.0] * 4, [0.0] * 4
    for number, (person, kind, price) in enumerate(given):
        people[person] = unpack_outcomes(pack(people[person]))
        arm = "ab"[person % 2]
        changes = []
        if kind == "list":
            change = expose(people[person], "e", arm)
            assert (change is None) == (person in joined)
            changes = [change] if change else []
            joined.setdefault(person, before[person])
        else:
            taken = event(number, "view" if kind == "view" else "purchase", price)
            changes = [change for _, change in take(people[person], taken)]
            if kind == "again":
                assert take(people[person], taken) == []
            if kind != "view":
                (after if person in joined else before)[person] += price
        for change in changes:
            count(tally, change, one)
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


def simulated(effect: float, sizes: tuple[int, int] = (2000, 2000), **fields: Any) -> Any:
    chance, tally, one = random.Random(1), Tally(), experiment(metric={"outcome": "conversion"}, **fields)
    number = 0
    for arm, size in zip("ab", sizes, strict=True):
        for _ in range(size):
            person = Outcomes()
            change = expose(person, "e", arm)
            assert change is not None
            count(tally, change, one)
            if chance.random() < 0.1 + effect * (arm == "b"):
                number += 1
                for _, happened in take(person, event(number)):
                    count(tally, happened, one)
    return results(tally, one, 7)


def test_results_say_what_is_there_and_when_sizes_are_wrong() -> None:
    found, harms = simulated(0.1)
    assert (found.arms["a"].people, found.arms["b"].people, found.at) == (2000, 2000, 7)
    assert found.arms["b"].low > 0
    assert found.arms["b"].p_value < 0.05
    assert not found.sample_ratio_mismatch
    assert harms == []
    assert simulated(0.0, sizes=(2000, 1500))[0].sample_ratio_mismatch
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
    for unpack, state in ((unpack_outcomes, Outcomes()), (unpack_tally, Tally())):
        with pytest.raises(ValueError, match="version 9"):
            unpack(b"\x09" + pack(state)[1:])
