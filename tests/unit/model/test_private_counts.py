"""Differential privacy: one person's bound, the noise, that a release is made once, and what the lists are made of."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import to_batch
from model.blend import BlendOptions, Recommender
from model.delta import pack_delta, unpack_delta
from model.item_index import ItemIndex
from model.private_counts import PrivacyOptions, PrivateCounts, epsilon
from model.snapshot import Snapshot
from tests.streams import snapshots

pytestmark = pytest.mark.unit
OPTIONS = PrivacyOptions(noise_multiplier=1.0, contributions=6, history=3, release_interactions=1000, items=12)


def sums(pairs: list[tuple[int, int]], size: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """The exact sums, before any release."""
    private, index = PrivateCounts(OPTIONS), ItemIndex(f"i{n}" for n in range(12))
    made = snapshots(pairs)
    for start in range(0, len(made), size):
        private.learn(to_batch(made[start : start + size], index, learn=True), 12)
    return private._new_counts, private._new_pairs


streams = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), min_size=1, max_size=80)


@settings(max_examples=60)
@given(streams)
def test_no_person_moves_the_sums_by_more_than_the_sensitivity(pairs: list[tuple[int, int]]) -> None:
    counts, weights = sums(pairs)
    for person in range(4):
        others, other_weights = sums([pair for pair in pairs if pair[0] != person])
        if not len(others):
            others, other_weights = np.zeros_like(counts), np.zeros_like(weights)
        moved = math.sqrt(((counts - others) ** 2).sum() + ((weights - other_weights) ** 2).sum())
        assert moved <= OPTIONS.sensitivity + 1e-5
    assert (np.tril(weights) == 0).all()


@given(streams, st.integers(1, 20))
def test_however_the_stream_is_cut_the_sums_are_the_same(pairs: list[tuple[int, int]], size: int) -> None:
    for whole, cut in zip(sums(pairs, 1000), sums(pairs, size), strict=True):
        np.testing.assert_array_equal(whole, cut)


def test_a_person_who_takes_other_items_again_and_again_reaches_the_sensitivity_of_a_full_history() -> None:
    counts, weights = sums([(0, item) for item in range(12)])
    assert counts.sum() == OPTIONS.contributions
    # The first three interactions have fewer than three items before them.
    missing = 3 * 1 + 2 * (1 / 2) + 1 * (1 / 3) - 2 * (1 / 2) - (1 / 3) + 1 / 2 + 1 / 3
    norm = (counts**2).sum() + (weights**2).sum()
    assert OPTIONS.sensitivity**2 - missing - 1 < norm <= OPTIONS.sensitivity**2


def test_noise_has_its_deviation_and_a_release_is_made_once() -> None:
    options = replace(OPTIONS, items=300, release_interactions=1)
    private, index = PrivateCounts(options), ItemIndex(f"i{n}" for n in range(300))
    before = PrivateCounts(options)
    before.load(private.snapshot())
    batch = to_batch(snapshots([(0, 1)]), index, learn=True)
    assert private.learn(batch, 300)
    above = private.pairs[np.triu_indices(300, 1)]
    assert above.std() == pytest.approx(options.noise, rel=0.02)
    assert private.counts.std() == pytest.approx(options.noise, rel=0.2)
    # A learner that fell over before its state was kept makes the same release again, and another learner another one.
    assert before.learn(batch, 300)
    np.testing.assert_array_equal(before.pairs, private.pairs)
    again = PrivateCounts(options)
    again.load(private.snapshot())
    np.testing.assert_array_equal(again.pairs, private.pairs)
    assert (again.releases, private.releases) == (1, 1)
    other = PrivateCounts(options)
    other.learn(batch, 300)
    assert not np.array_equal(other.pairs, private.pairs)


def test_lists_are_made_of_what_was_released_and_of_nothing_else() -> None:
    stream = [(user, item) for user in range(60) for item in (user % 2, user % 2 + 2, user % 2 + 4)]
    little_noise = PrivacyOptions(noise_multiplier=0.05, release_interactions=len(stream), items=16)
    options = BlendOptions(privacy=little_noise, weights=(1.0, 0.0, 0.01))
    learner, replica = Recommender(options), Recommender(options)
    made = snapshots(stream)
    asked = Snapshot("someone", "e", 0, 0, ["i0"], [1.0])
    for part in (made[:-1], made[-1:]):
        assert learner.popularity.sums.sum() == 0
        assert learner.cooccurrence.weights.sum() == 0
        replica.apply(unpack_delta(pack_delta(learner.learn(part))))
    (ranked,) = replica.recommend([asked], 3)
    assert set(ranked.item_ids[:2]) == {"i2", "i4"}
    assert learner.recommend([asked], 3) == [ranked]
    assert Recommender.unpack(learner.pack(), options).recommend([asked], 3) == [ranked]
    assert learner.linear._learned == learner.factorization._open == 0


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 3.0])
def test_epsilon_is_that_of_the_gaussian_mechanism(multiplier: float) -> None:
    # Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 5.
    found, normal = epsilon(multiplier, 1e-5), NormalDist()
    left = normal.cdf(1 / (2 * multiplier) - found * multiplier)
    right = math.exp(found) * normal.cdf(-1 / (2 * multiplier) - found * multiplier)
    assert left - right == pytest.approx(1e-5, rel=0.02)


def test_what_was_learned_without_privacy_is_not_used_under_it() -> None:
    open_model = Recommender(BlendOptions())
    open_model.learn(snapshots([(user, item) for user in range(5) for item in range(6)]))
    options = BlendOptions(privacy=OPTIONS, horizon="any")
    private = Recommender.unpack(open_model.pack(), options)
    assert private.index.ids == open_model.index.ids
    assert private.cooccurrence.weights.sum() == private.popularity.sums.sum() == 0
    assert not len(private.linear.weights)
    private.learn(snapshots([(9, 1), (9, 2)]))
    again = Recommender.unpack(private.pack(), options)
    assert again.private._new_counts.sum() == private.private._new_counts.sum() == 2
    again.forget_people()
    assert not len(again.private._new_counts)
