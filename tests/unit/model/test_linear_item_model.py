"""The linear item model: both closed forms, however a stream is cut; numba and torch agree; states of all versions."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.arrays import pack_array, unpack_array
from model.batch import Batch, batch_of, parts_of
from model.cooccurrence import Cooccurrence, CooccurrenceOptions
from model.linear_item_model import LinearItemModel, LinearItemModelOptions

pytestmark = pytest.mark.unit
ITEMS = 9


def model_of(**options: float) -> LinearItemModel:
    """An untaught model of ITEMS items."""
    model = LinearItemModel(LinearItemModelOptions(**options), torch.device("cpu"))  # type: ignore[arg-type]
    model.resize(ITEMS)
    return model


def statistics() -> Cooccurrence:
    """The pair statistics of nothing yet."""
    cooccurrence = Cooccurrence(CooccurrenceOptions(neighbours=ITEMS), torch.device("cpu"))
    cooccurrence.resize(ITEMS)
    return cooccurrence


def learn(model: LinearItemModel, cooccurrence: Cooccurrence, batches: list[Batch]) -> LinearItemModel:
    """The model after it has learned from the batches, and its replica."""
    replica = LinearItemModel(model.options, torch.device("cpu"))
    replica.resize(ITEMS)
    for batch in batches:
        for part in parts_of(batch, model.to_step, model.options.step):
            cooccurrence.learn(part)
            model.learn(part, cooccurrence)
        replica.apply(model.delta())
    return replica


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
        result.append(batch_of(items, repeated=flags))
    return result


streams = st.lists(st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1)), min_size=20, max_size=120)


@settings(max_examples=30, deadline=None)
@given(streams, st.integers(1, 50), st.sampled_from([0.0, 0.35]))
def test_it_is_the_closed_form_over_all_pairs_of_items_however_the_stream_is_cut(
    pairs: list[tuple[int, int]], size: int, decay: float
) -> None:
    model = model_of(
        slots=ITEMS, regularization=5.0, pair_decay=decay, first=len(pairs) // 2, growth=0.0, step=len(pairs)
    )
    replica = learn(model, statistics(), batches(pairs, size))
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
    for one in (model, replica):
        np.testing.assert_allclose(one.weights.numpy(), expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(streams, st.integers(1, 50))
def test_more_items_than_slots_are_solved_each_from_its_strongest_neighbours(
    pairs: list[tuple[int, int]], size: int
) -> None:
    options = {"slots": 1, "regularization": 5.0, "predictors": 3, "item_first": 1, "item_growth": 0.0}
    model, cooccurrence = model_of(step=len(pairs), step_items=ITEMS, **options), statistics()
    learned = [(0, 1), *pairs[1:]]
    replica = learn(model, cooccurrence, batches(learned, size))
    assert model.sparse
    gram = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        used = cooccurrence.neighbours[item] >= 0
        gram[item, cooccurrence.neighbours[item][used]] = cooccurrence.weights[item][used]
    counts = cooccurrence.counts.numpy()
    for item in range(ITEMS):
        predictors = model.predictors[item][model.predictors[item] >= 0].numpy()
        strength = gram[item] / np.sqrt(np.maximum(counts, 1))
        assert sorted(strength[predictors]) == pytest.approx(sorted(np.sort(strength[strength > 0])[-3:]))
        left = gram[np.ix_(predictors, predictors)] + np.diag(counts[predictors] + 5.0)
        expected = np.linalg.solve(left, gram[predictors, item])
        if np.linalg.eigvalsh(left).min(initial=1.0) > 0:
            for one in (model, replica):
                np.testing.assert_array_equal(one.predictors[item, : len(predictors)], predictors)
                np.testing.assert_allclose(one.predictor_weights[item, : len(predictors)], expected, atol=1e-4)


@pytest.mark.parametrize("slots", [1, ITEMS])
def test_a_cut_between_two_steps_changes_no_solution(slots: int) -> None:
    random = np.random.default_rng(2)
    pairs = [(int(user), int(item)) for user, item in random.integers(0, (6, ITEMS), (90, 2))]
    models = []
    for size in (1, 7, 90):
        models.append(model_of(slots=slots, first=10, step=8, step_items=2, item_first=2))
        learn(models[-1], statistics(), batches(pairs, size))
    for model in models[1:]:
        assert model.snapshot() == models[0].snapshot()
    assert models[0].weights.numel() or (models[0].predictors >= 0).any()


def test_an_indefinite_gram_matrix_leaves_the_last_solution() -> None:
    model, cooccurrence = model_of(slots=ITEMS, regularization=0.01, first=3, step=3), statistics()
    learn(model, cooccurrence, batches([(0, 0), (0, 1), (1, 0)], 3))
    before = model.weights.clone()
    assert before.numel()
    model._gram[1, 1] = 0.001
    learn(model, cooccurrence, batches([(0, 2), (0, 3), (1, 2)], 3))
    torch.testing.assert_close(model.weights, before)


@pytest.mark.parametrize("slots", [1, ITEMS])
def test_numba_and_torch_give_the_same_scores_and_state_comes_back(slots: int) -> None:
    random = np.random.default_rng(1)
    pairs = [(int(user), int(item)) for user, item in random.integers(0, (6, ITEMS), (80, 2))]
    options = {"slots": slots, "regularization": 2.0, "first": 10, "step": 5, "item_first": 2, "predictors": 4}
    model, cooccurrence = model_of(**options), statistics()
    learn(model, cooccurrence, batches(pairs, 7))
    items = random.integers(-1, ITEMS, (4, 6))
    items[:, :2] = (0, 1)
    items[:, 2:][items[:, 2:] < 2] = -1
    for row in items:
        row[2:] = [*dict.fromkeys(row[2:][row[2:] >= 0]), -1, -1, -1, -1][:4]
    weights = random.random((4, 6)).astype(np.float32) * (items >= 0)
    restored = model_of(**options)
    restored.load(model.snapshot())
    candidates = random.integers(-1, ITEMS, (4, 5))
    scores = model.score_candidates(items, weights, candidates)
    assert np.abs(scores).sum() > 0
    for other in (model._score_candidates, restored.score_candidates):
        np.testing.assert_allclose(other(items, weights, candidates), scores, atol=1e-6)
    every = np.empty((4, ITEMS), np.float32)
    model.score(items, weights, every)
    known = np.broadcast_to(np.arange(ITEMS), (4, ITEMS)).copy()
    np.testing.assert_allclose(every, model.score_candidates(items, weights, known), atol=1e-6)
    if model.sparse:
        by_torch = torch.zeros(4, ITEMS)
        model._score_sparse(items, weights, by_torch)
        np.testing.assert_allclose(by_torch.numpy(), every, rtol=1e-5, atol=1e-6)
    more = batches([(0, item) for item in range(ITEMS)] * 2, ITEMS)
    again = deepcopy(cooccurrence)
    again._bind()
    learn(restored, again, more)
    learn(model, cooccurrence, more)
    assert restored.snapshot() == model.snapshot()


def test_state_whose_rows_were_held_by_the_densest_items_is_read() -> None:
    pairs = [(user, item) for user in range(4) for item in (4, 2, 7)]
    model = model_of(slots=ITEMS, first=1000)
    learn(model, statistics(), batches(pairs, 12))
    packed, held = model.snapshot(), np.array([7, -1, 4, 2])
    gram = unpack_array(packed.pop("gram_by_row"), np.float32).reshape(ITEMS, ITEMS)
    for name in ("sparse", "solved", "predictors", "predictor_weights", "item_due"):
        del packed[name]
    rows = np.where(held[:, None] * held >= 0, gram[np.ix_(held, held)], 0) * (held >= 0) * (held >= 0)[:, None]
    old = packed | {"held": pack_array(held), "gram": pack_array(rows.astype(np.float32)), "counts": b""}
    restored, smaller = model_of(slots=ITEMS, first=1000), model_of(slots=5)
    restored.load(old)
    np.testing.assert_array_equal(restored._gram, model._gram)
    smaller.load(old)
    assert smaller.sparse
