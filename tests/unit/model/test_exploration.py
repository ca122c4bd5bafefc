"""Exploration: the places it takes, that its propensities are what happens, and that a batch changes nothing."""

from collections import Counter

import numpy as np
import pytest

from model.exploration import draws, explore

pytestmark = pytest.mark.unit
ITEMS = np.array([[10, 11, 12, 13, 20, 21, -1]])
SCORES = np.array([[0.9, 0.8, 0.7]], np.float32)


def explored(
    columns: list[int], drawn: list[float], temperature: float = 0.1
) -> tuple[list[int], list[float], list[float]]:
    listed, chances = np.array([columns]), np.full((1, len(columns)), 0.5, np.float32)
    found = explore(listed, chances, ITEMS, 4, SCORES, None, np.array([drawn], np.float32), temperature)
    return listed[0].tolist(), chances[0].tolist(), found[0].tolist()


def test_the_last_places_are_given_away_and_the_rest_stays() -> None:
    columns, chances, propensities = explored([0, 1, 2], [0.0])
    assert columns == [0, 1, 4]
    assert chances == [0.5, 0.5, 0.0]
    assert propensities == pytest.approx([0, 0, 1 / (1 + np.exp(-1))])


def test_a_short_list_grows() -> None:
    assert explored([0, -1, -1], [0.0, 0.0])[0] == [0, 4, 5]


def test_what_is_listed_already_is_not_drawn_and_the_last_is_sure() -> None:
    columns, _, propensities = explored([4, 0, 1], [0.99])
    assert columns == [4, 0, 5]
    assert propensities == [0, 0, 1]
    assert explored([4, 5, 0], [0.5])[0] == [4, 5, 0]


def test_where_too_few_can_be_drawn_the_rest_of_the_list_moves_on() -> None:
    columns, chances, propensities = explored([0, 4, 5, 6], [0.0, 0.0, 0.0])
    assert columns == [0, 4, 5, 6]
    assert [propensity > 0 for propensity in propensities] == [False, True, True, False]
    columns, chances, propensities = explored([4, 0, 1, 5], [0.0, 0.0, 0.0])
    assert columns == [4, 5, 0, 1]
    assert chances == [0.5, 0, 0.5, 0.5]
    # More places than the list has.
    assert explored([0, 1], [0.0, 0.0, 0.0, 0.0])[0] == [4, 5]


def test_no_places_or_no_new_items_change_nothing() -> None:
    assert explored([0, 1, 2], [])[0] == [0, 1, 2]
    listed = np.array([[0, 1, 2]])
    none = np.zeros((1, 0), np.float32)
    assert not explore(listed, none.repeat(3, 1), ITEMS, 7, none, None, np.zeros((1, 1), np.float32), 0.1).any()
    assert listed.tolist() == [[0, 1, 2]]


def test_propensities_are_the_shares_of_many_draws() -> None:
    drawn = draws([f"event {n}" for n in range(20_000)], 1, 3)
    taken, told = Counter[int](), {}
    for number in drawn[:, 0].tolist():
        columns, _, propensities = explored([0, 1, 2], [number], temperature=0.2)
        taken[columns[2]] += 1
        told[columns[2]] = propensities[2]
    assert sum(told.values()) == pytest.approx(1)
    for column, count in taken.items():
        assert count / len(drawn) == pytest.approx(told[column], abs=0.01)


def test_the_draws_of_two_places_and_of_two_seeds_are_independent() -> None:
    names = [f"e{n}" for n in range(10_000, 40_000)]
    both = draws(names, 2, 1)
    for pair in (both, np.stack([both[:, 0], draws(names, 1, 2)[:, 0]], 1)):
        table, _, _ = np.histogram2d(pair[:, 0], pair[:, 1], 4, ((0, 1), (0, 1)))
        assert np.abs(table / len(names) - 1 / 16).max() < 0.01


def test_a_draw_depends_on_the_name_and_the_seed_alone() -> None:
    assert draws(["a", "b"], 2, 1)[1].tolist() == draws(["b"], 2, 1)[0].tolist()
    assert draws(["a"], 2, 1).tolist() != draws(["a"], 2, 2).tolist()
    assert draws([], 2, 1).shape == (0, 2)


def test_thompson_sampling_draws_each_by_its_chance_to_be_the_best() -> None:
    means, spreads = np.array([[0.5, 0.0, -1.0]], np.float32), np.array([[0.1, 1.0, 2.0]], np.float32)
    items = np.array([[10, 11, 12, 20, 21, 22]])
    sampled = np.random.default_rng(1).normal(means[0], spreads[0], (200_000, 3)).argmax(1)
    counted = np.bincount(sampled, minlength=3) / len(sampled)
    told = {}
    for number in np.linspace(0, 0.999, 50, dtype=np.float32):
        listed, chances = np.array([[0, 1, 2]]), np.zeros((1, 3), np.float32)
        found = explore(listed, chances, items, 3, means, spreads, np.array([[number]]), 0.1)
        told[int(listed[0, 2])] = found[0, 2]
    assert [told[3 + n] for n in range(3)] == pytest.approx(counted, abs=0.005)
