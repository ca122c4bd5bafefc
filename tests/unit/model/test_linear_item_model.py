"""The linear item model: the closed form, however a stream is cut; bounded; numba and torch agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Batch
from model.linear_item_model import LinearItemModel, LinearItemModelOptions

pytestmark = pytest.mark.unit
ITEMS = 9


def model_of(**options: float) -> LinearItemModel:
    """An untaught model of ITEMS items."""
    model = LinearItemModel(LinearItemModelOptions(**options), torch.device("cpu"))  # type: ignore[arg-type]
    model.resize(ITEMS)
    return model


def batches(pairs: list[tuple[int, int]], size: int) -> list[Batch]:
    """The interactions (user, item) as batches of `size`, each with its user's items so far, newest first."""
    histories: dict[int, list[int]] = {}
    rows, repeated = [], []
    for user, item in pairs:
        history = histories.setdefault(user, [])
        repeated.append(item in history)
        histories[user] = [item, *(other for other in history if other != item)]
        rows.append(histories[user] + [-1] * (ITEMS - len(histories[user])))
    result = []
    for start in range(0, len(rows), size):
        items, flags = np.array(rows[start : start + size]), np.array(repeated[start : start + size])
        zeros = np.zeros(len(items), np.int64)
        weights, types = (items >= 0).astype(np.float32), np.zeros(items.shape, np.uint8)
        result.append(
            Batch(items, weights, types, zeros, zeros, [""] * len(items), [1] * len(items), flags, types, types)
        )
    return result


streams = st.lists(st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1)), min_size=20, max_size=120)


@settings(max_examples=30, deadline=None)
@given(streams, st.integers(1, 50), st.sampled_from([0.0, 0.35]))
def test_it_is_the_closed_form_over_all_pairs_of_items_however_the_stream_is_cut(
    pairs: list[tuple[int, int]], size: int, decay: float
) -> None:
    model = model_of(slots=ITEMS, regularization=5.0, pair_decay=decay, first=len(set(pairs)), growth=1.0)
    for batch in batches(pairs, size):
        model.learn(batch)
    gram = 5.0 * np.eye(ITEMS)
    for batch in batches(pairs, 1):
        item, *others = (other for other in batch.items[0] if other >= 0)
        if not batch.repeated[0]:
            gram[item, item] += 1
            for distance, other in enumerate(others, 1):
                gram[[item, other], [other, item]] += (1 + distance) ** -decay
    used = model.items.numpy()
    inverse = np.linalg.inv(gram[np.ix_(used, used)])
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.weights.numpy(), expected, atol=1e-4)


def test_the_densest_items_keep_a_row() -> None:
    model = model_of(slots=3, regularization=1.0, first=1, growth=0.0)
    pairs = [(user, item) for item, users in enumerate((5, 1, 4, 2, 3)) for user in range(users)]
    for batch in batches(pairs, 4):
        model.learn(batch)
    assert sorted(model.items.tolist()) == [0, 2, 4]


def test_pairs_counted_without_their_items_leave_the_last_solution() -> None:
    model = model_of(slots=2, regularization=0.01, first=3, growth=1.0)
    for batch in batches([(0, 0), (0, 1), (1, 0)], 3):
        model.learn(batch)
    before = model.weights.clone()
    rows = np.array([[0, 1]] * 3)
    flags, zeros = np.zeros(3, np.bool_), np.zeros(3, np.int64)
    model._gram[1, 1] = 0
    weights, types = np.ones((3, 2), np.float32), rows.astype(np.uint8)
    model.learn(Batch(rows, weights, types, zeros, zeros, [""] * 3, [1] * 3, flags, types, types))
    torch.testing.assert_close(model.weights, before)


def test_numba_and_torch_give_the_same_scores_and_state_comes_back() -> None:
    random = np.random.default_rng(1)
    pairs = [(int(user), int(item)) for user, item in random.integers(0, (6, ITEMS), (80, 2))]
    model = model_of(slots=5, regularization=2.0, first=10)
    for batch in batches(pairs, 7):
        model.learn(batch)
    items = random.integers(-1, ITEMS, (4, 6))
    weights = random.random((4, 6)).astype(np.float32) * (items >= 0)
    restored = model_of(slots=5, regularization=2.0, first=10)
    restored.load(model.snapshot())
    candidates = random.integers(-1, ITEMS, (4, 5))
    scores = model.score_candidates(items, weights, candidates)
    assert np.abs(scores).sum() > 0
    for other in (model._score_candidates, restored.score_candidates):
        np.testing.assert_allclose(other(items, weights, candidates), scores, atol=1e-6)
    every = torch.empty(4, ITEMS)
    model.score(items, weights, every)
    known = np.broadcast_to(np.arange(ITEMS), (4, ITEMS)).copy()
    np.testing.assert_allclose(every.numpy(), model.score_candidates(items, weights, known), atol=1e-6)
    (more,) = batches([(0, item) for item in range(ITEMS)], ITEMS)
    assert model.learn(more) == restored.learn(more)
