"""The learned blend: the fixed order before it has learned, the right one after, and its state."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.arrays import pack_array
from model.batch import Batch
from model.candidates import Candidates
from model.learned_blend import FEATURES, LearnedBlend, LearnedBlendOptions, ShownLists, features_of, level
from schema.event import EVENT_TYPES

pytestmark = pytest.mark.unit
ITEMS = np.arange(6)[None]
SIGNALS = np.array([[[1, 2, 3, 4, 0, 6]], *[[[0] * 6]] * 3, [[1] * 6], *[[[0] * 6]] * 6], np.float32)
NOBODY = np.array([-1])
COUNTS = np.array([[0, 1, 2, 3, 4, 5]], np.float32)


def candidates_of(shares: np.ndarray) -> Candidates:
    """One row of six candidates, of which item 5 is the user's own."""
    return Candidates(ITEMS, np.array([[-1, -1, -1, -1, -1, 0]]), shares)


def random_shares(random: np.random.Generator) -> np.ndarray:
    """Shares of two models, and a prior."""
    return random.random((3, 1, 6)).astype(np.float32) * np.array([1, 1, 0.01], np.float32)[:, None, None]


def features(shares: np.ndarray, category: tuple[int, ...] = (-1,) * 6) -> np.ndarray:
    """The candidates' features, for a user whose newest item is item 5: they took it 3 times, and bought it last."""
    zeros, ones = np.zeros(1, np.int64), np.ones((1, 1), np.uint8)
    types, weights = ones * EVENT_TYPES.index("purchase"), ones.astype(np.float32)
    batch = Batch(
        np.array([[5]]), weights, types, zeros, zeros, ["u"], [1], zeros > 0, 3 * ones, 20 * ones, zeros > 0, types
    )
    return features_of(candidates_of(shares), SIGNALS, COUNTS, (1.0, 0.3), batch, np.array(category, np.int32))


def test_features_tell_own_items_and_the_category_of_the_newest() -> None:
    shares = random_shares(np.random.default_rng(5))
    own, alike, other = features(shares, (1, 0, -1, 1, 1, 0))[0, [5, 1, 2]]
    assert own[6:13].tolist() == [1, 0, 1, shares[0, 0, 5], 0, 0, 1]
    assert not alike[6:13].any()
    assert alike[13:16].tolist() == own[13:16].tolist() == pytest.approx([np.log(1.05) / 2, 1, 1])
    assert other[13:16].tolist() == pytest.approx([np.log(0.05) / 2, 0, 0])


def test_signals_are_shares_of_the_largest_that_is_not_the_user_s_own() -> None:
    shares = features(random_shares(np.random.default_rng(6)))[0, :, 16:20]
    assert shares[:, 0].tolist() == pytest.approx([0.25, 0.5, 0.75, 1, 0, 1.5])
    assert shares[:, 1] == pytest.approx(np.log(shares[:, 0] + 0.02) / 2)
    assert not shares[:, 2].any()


def test_popularity_is_a_feature_of_its_own() -> None:
    found = features(random_shares(np.random.default_rng(7)))[0]
    assert found[:, 38] == pytest.approx(np.log1p(COUNTS[0]))


def test_an_own_item_is_known_by_how_often_and_how_long_ago_it_was_taken() -> None:
    found = features(random_shares(np.random.default_rng(8)))[0, :, 39:]
    assert found[5] == pytest.approx([np.log(3), 20 / 16, 400 / 256])
    assert not found[:5].any()


def test_before_it_learns_the_order_is_that_of_the_fixed_blend() -> None:
    shares = random_shares(np.random.default_rng(1))
    columns, chances = LearnedBlend(LearnedBlendOptions()).order(
        ["u"], [1], NOBODY, candidates_of(shares), features(shares), 6
    )
    total = shares[0, 0] + np.float32(0.3) * shares[1, 0] + shares[2, 0]
    assert columns[0].tolist() == np.argsort(-total).tolist()
    assert chances.sum() == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(chances[0]) <= 0).all()


def test_it_learns_that_people_follow_the_second_model() -> None:
    random = np.random.default_rng(2)
    taught, untaught = (LearnedBlend(LearnedBlendOptions(learning_rate=rate)) for rate in (0.1, 0.0))
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(600):
        shares = random_shares(random)
        taken = int(shares[1, 0].argmax())
        for blend in (taught, untaught):
            columns, _ = blend.order(["u"], [5], NOBODY, candidates_of(shares), features(shares), 1)
            hits[blend is taught].append(columns[0, 0] == taken)
            blend.learn("u", taken)
    assert np.mean(hits[False]) < 0.5
    assert np.mean(hits[True][-200:]) > 0.85


def test_it_takes_back_what_scores_make_of_popularity() -> None:
    random = np.random.default_rng(9)
    blend = LearnedBlend(LearnedBlendOptions())

    def shown() -> tuple[np.ndarray, int]:
        """Scores of relevance times popularity, and what is taken, by relevance alone."""
        relevance = random.random(5)
        shares = np.zeros((3, 1, 6), np.float32)
        shares[0, 0, :5] = relevance * (1 + COUNTS[0, :5]) / 6
        return shares, int(random.choice(5, p=relevance**4 / (relevance**4).sum()))

    def hits(blend: LearnedBlend, rounds: int) -> int:
        """How often what is taken stood first; the blend learns from it."""
        first = 0
        for _ in range(rounds):
            shares, taken = shown()
            columns, _ = blend.order(["u"], [1], NOBODY, candidates_of(shares), features(shares), 1)
            first += columns[0, 0] == taken
            blend.learn("u", taken)
        return first

    hits(blend, 1000)
    assert blend.weights[0, 38] + blend.weights[1, 38] < -0.5
    assert hits(blend, 300) > 1.2 * hits(LearnedBlend(LearnedBlendOptions(learning_rate=0.0)), 300)


def test_a_list_teaches_once_and_only_its_own_user_s_event() -> None:
    shares = random_shares(np.random.default_rng(3))
    blend = LearnedBlend(LearnedBlendOptions(remembered_users=2))
    for user in ("a", "b", "c"):
        blend.order([user], [5], NOBODY, candidates_of(shares), features(shares), 3)
    untaught = blend.weights.copy()
    blend.learn("a", 2)
    blend.learn("nobody", 2)
    blend.forget("c")
    blend.learn("c", 2)
    blend.learn("b", 99)
    np.testing.assert_array_equal(blend.weights, untaught)
    blend.order(["b"], [5], NOBODY, candidates_of(shares), features(shares), 3)
    blend.learn("b", 2)
    taught = blend.weights.copy()
    assert not np.array_equal(taught, untaught)
    blend.learn("b", 2)
    np.testing.assert_array_equal(blend.weights, taught)


def test_state_comes_back_and_an_unknown_version_is_refused() -> None:
    options = LearnedBlendOptions()
    blend = LearnedBlend(options)
    shares = random_shares(np.random.default_rng(4))
    blend.order(["u"], [5], NOBODY, candidates_of(shares), features(shares), 3)
    blend.learn("u", 1)
    restored = LearnedBlend.unpack(blend.pack(), options)
    for one in (blend, restored):
        one.order(["u"], [9], NOBODY, candidates_of(shares), features(shares), 3)
        one.learn("u", 4)
    np.testing.assert_array_equal(restored.weights, blend.weights)
    assert blend.weights.shape[1] == FEATURES
    with pytest.raises(ValueError, match="version 9"):
        LearnedBlend.unpack(bytes((9,)) + blend.pack()[1:], options)


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        (1, [*range(16)]),
        (2, [*range(22), 24, 25]),
        (3, [*range(26), 38]),
        (4, [*range(26), *range(38, 42)]),
        (5, [*range(26), *range(30, 34), *range(38, 42)]),
        (7, [*range(26), *range(30, 42)]),
    ],
    ids=[
        "no signals",
        "four signals",
        "no counts of own items",
        "no content",
        "no sequence, no relations",
        "no people",
    ],
)
def test_state_written_before_there_were_all_features_is_read(version: int, kept: list[int]) -> None:
    weights = np.arange(6 * len(kept), dtype=np.float32).reshape(6, -1)
    packed = bytes((version,)) + msgspec.msgpack.encode([pack_array(weights), pack_array(weights + 1)])
    blend = LearnedBlend.unpack(packed, LearnedBlendOptions())
    np.testing.assert_array_equal(blend.weights[:6, kept], weights)
    assert not np.delete(blend.weights, kept, axis=1).any()
    assert not blend.weights[6:].any()
    assert LearnedBlend.unpack(blend.pack(), LearnedBlendOptions()).pack() == blend.pack()


def test_people_of_a_cluster_have_an_order_of_their_own_until_there_are_others() -> None:
    random, blend = np.random.default_rng(3), LearnedBlend(LearnedBlendOptions(clusters=2))
    hits = []
    for number in range(1200):
        cluster, shares = number % 2, random_shares(random)
        # The first cluster follows the first model, the second the second.
        taken = int(shares[cluster, 0, :5].argmax())
        columns, _ = blend.order(["u"], [5], np.array([cluster]), candidates_of(shares), features(shares), 1)
        hits.append(columns[0, 0] == taken)
        blend.learn("u", taken)
    assert np.mean(hits[-300:]) > 0.8
    restored = LearnedBlend.unpack(blend.pack(), LearnedBlendOptions(clusters=2))
    np.testing.assert_array_equal(restored.weights, blend.weights)
    # One that it does not know is none.
    asked = [5], candidates_of(shares), features(shares), 3
    unknown, nobody = (restored.order(["u"], asked[0], np.array([n]), *asked[1:]) for n in (2, -1))
    np.testing.assert_array_equal(unknown[1], nobody[1])
    others = LearnedBlend.unpack(blend.pack(), LearnedBlendOptions(clusters=3))
    np.testing.assert_array_equal(others.weights[:6], blend.weights[:6])
    assert not others.weights[6:].any()


@pytest.mark.parametrize("corrected", [False, True])
def test_what_is_taken_at_a_place_that_is_seldom_seen_teaches_more(corrected: bool) -> None:
    moved = []
    for place in (-1, 0, 3):
        blend = LearnedBlend(LearnedBlendOptions(position_bias=corrected, places=4))
        for _ in range(400):
            blend.exposure.observe(0, first=True)
        shares = random_shares(np.random.default_rng(8))
        blend.order(["u"], [3], NOBODY, candidates_of(shares), features(shares), 4)
        blend.learn("u", 2, place)
        # Adagrad divides by the root of what it has seen, so that what counts shows in its sums.
        moved.append(float(blend._squares.sum()))
        restored = LearnedBlend.unpack(blend.pack(), blend.options)
        assert restored.exposure.weight(3) == blend.exposure.weight(3)
    assert moved[0] == moved[1]
    assert (moved[2] > 50 * moved[1]) is corrected


def test_levels_follow_the_number_of_events() -> None:
    assert [level(count) for count in (0, 2, 3, 14, 15, 62, 63, 254, 255, 10**9)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), unique=True, max_size=7), st.integers(1, 40)), max_size=12))
def test_shown_lists_are_those_last_put_and_are_given_once(batches: list[tuple[list[int], int]]) -> None:
    shown, last = ShownLists(4), dict[str, tuple[list[int], int]]()
    for number, (users, columns) in enumerate(batches):
        names = [f"u{user}" for user in users]
        items = np.array([[100 * user + number] * columns for user in users], np.int64).reshape(-1, columns)
        shown.put(
            names,
            items,
            np.full((*items.shape, FEATURES), number, np.float32),
            np.array([[user, -1] for user in users], np.int64).reshape(-1, 2),
        )
        last |= {name: (row.tolist(), number) for name, row in zip(names, items, strict=True)}
    kept = {f"u{user}": shown.pop(f"u{user}") for user in range(10)}
    newest = batches[-1][0][-4:] if batches else []
    assert {f"u{user}" for user in newest} <= {user for user, found in kept.items() if found} <= set(last)
    assert sum(found is not None for found in kept.values()) <= 4
    for user, found in kept.items():
        if found is not None:
            items, features, parts = found
            row, number = last[user]
            assert items[items >= 0].tolist() == row
            assert set(features[items >= 0].ravel().tolist()) == {float(number)}
            assert parts.tolist() == [int(user[1:]), -1]
        assert shown.pop(user) is None
