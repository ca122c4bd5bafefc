"""Co-occurrence: statistics that are sums, however the stream is cut or shared out, and both versions of the score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Batch
from model.batch import batch_of as batch_of_items
from model.cooccurrence import Cooccurrence, CooccurrenceOptions
from tests.devices import DEVICES

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("device", DEVICES)
def test_numba_and_torch_add_the_same_neighbours(device: str) -> None:
    random = np.random.default_rng(1)
    model = Cooccurrence(CooccurrenceOptions(neighbours=8), torch.device("cpu"))
    model.resize(30)
    used = random.integers(0, 9, 30)
    for row, size in enumerate(used):
        model.neighbours[row, :size] = torch.from_numpy(random.choice(30, size, replace=False).astype(np.int32))
        model.weights[row, :size] = torch.from_numpy(random.random(size).astype(np.float32))
        model.forward[row, :size] = torch.from_numpy(random.random(size).astype(np.float32))
    items = random.integers(-1, 30, (5, 7))
    weights = random.random((5, 7)).astype(np.float32) * (items >= 0)
    model._source_damping[:], model._target_damping[:] = torch.rand(2, 30, generator=torch.manual_seed(1))
    there = on(device, model)
    there._source_damping, there._target_damping = model._source_damping.to(device), model._target_damping.to(device)
    by_torch, by_numba = torch.rand(5, 30, device=device), torch.rand(5, 30)
    there._add_neighbours(items, weights, by_torch)
    model.score(items, weights, by_numba.numpy())
    assert by_numba.abs().sum() > 0
    torch.testing.assert_close(by_torch.cpu(), by_numba)
    candidates = np.stack([random.permutation(30)[:6] for _ in range(5)])
    candidates[2, 4] = -1
    scores = model.score_candidates(items, weights, candidates)
    assert (np.abs(scores).sum((1, 2)) > 0).all()
    # Once more, as what is summed up must leave nothing behind.
    for _ in range(2):
        np.testing.assert_allclose(there._score_candidates(items, weights, candidates), scores, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_numba_and_torch_name_the_same_causes(device: str) -> None:
    random = np.random.default_rng(2)
    model = Cooccurrence(CooccurrenceOptions(neighbours=8), torch.device("cpu"))
    model.resize(30)
    for row, size in enumerate(random.integers(0, 9, 30)):
        model.neighbours[row, :size] = torch.from_numpy(random.choice(30, size, replace=False).astype(np.int32))
        model.weights[row, :size] = torch.from_numpy(random.random(size).astype(np.float32))
    items = np.stack([random.permutation(30)[:7] for _ in range(5)])
    items[3, 4:] = -1
    weights = random.random((5, 7)).astype(np.float32) * (items >= 0)
    listed = np.stack([random.permutation(30)[:10] for _ in range(5)])
    listed[2, 4] = -1
    columns = model.led_by(items, weights, listed)
    assert (columns >= 0).any(1).all()
    assert columns[2, 4] == -1
    there = on(device, model)
    for _ in range(2):
        np.testing.assert_array_equal(there._led_by(items, weights, listed), columns)


def on(device: str, model: Cooccurrence) -> Cooccurrence:
    there = Cooccurrence(model.options, torch.device(device))
    there.load(model.snapshot())
    return there


def test_what_people_have_together_is_similar_and_leads_to_each_other() -> None:
    model = Cooccurrence(CooccurrenceOptions(neighbours=ITEMS), torch.device("cpu"))
    model.resize(ITEMS)
    # 0 and 1 are had together by three people, 0 and 2 by one.
    model.learn(batch_of([[1, 0], [1, 0], [1, 0], [2, 0]]))
    everything, asked = np.ones(ITEMS, np.bool_), np.array([0, 1, 3])
    rows, scores = model.similar(asked, everything, 3)
    assert rows.tolist() == [[1, 2, -1], [0, -1, -1], [-1, -1, -1]]
    assert scores[0, 0] > scores[0, 1] > scores[0, 2] == 0
    assert model.similar(asked, everything, 1)[0].tolist() == [[1], [0], [-1]]
    assert model.similar(asked, np.arange(ITEMS) != 1, 2)[0].tolist() == [[2, -1], [0, -1], [-1, -1]]
    history, confidence = np.array([[5, 2, 1]]), np.ones((1, 3), np.float32)
    assert model.led_by(history, confidence, np.array([[0, 5, -1]])).tolist() == [[2, -1, -1]]


def test_an_items_growth_is_told_at_powers_of_one_and_a_half() -> None:
    model = Cooccurrence(CooccurrenceOptions(neighbours=ITEMS), torch.device("cpu"))
    model.resize(ITEMS)
    told = []
    for count in range(1, 60):
        model.learn(batch_of([[0, 1]]))
        if model.grown(model.delta()).tolist() == [0]:
            told.append(count)
    assert told == [1, 2, 3, 4, 6, 8, 12, 18, 26, 39, 58]
    model.learn(batch_of([[0, 1]] * 40))
    assert model.grown(model.delta()).tolist() == [0]


ITEMS = 12


def batch_of(rows: list[list[int]]) -> Batch:
    """Histories, newest first, whose newest item is the event's."""
    items = np.array([row + [-1] * (ITEMS - len(row)) for row in rows], np.int64).reshape(-1, ITEMS)
    return batch_of_items(items)


def statistics(rows: list[list[int]], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair weights and forward weights [ITEMS, ITEMS] and counts [ITEMS] after learning in batches of `size`."""
    model = Cooccurrence(CooccurrenceOptions(neighbours=ITEMS), torch.device("cpu"))
    model.resize(ITEMS)
    for start in range(0, len(rows), size):
        model.learn(batch_of(rows[start : start + size]))
    pairs, forward = np.zeros((2, ITEMS, ITEMS))
    for item in range(ITEMS):
        used = model.neighbours[item] >= 0
        pairs[item, model.neighbours[item][used]] = model.weights[item][used]
        forward[item, model.neighbours[item][used]] = model.forward[item][used]
    return pairs, forward, model.counts.numpy()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1)), min_size=1, max_size=80), st.integers(1, 30))
def test_the_statistics_are_sums_over_users_however_the_stream_is_cut(pairs: list[tuple[int, int]], size: int) -> None:
    histories: dict[int, list[int]] = {}
    rows = []
    for user, item in pairs:
        histories[user] = [item, *(other for other in histories.get(user, []) if other != item)]
        rows.append((user, histories[user]))
    whole = statistics([row for _, row in rows], 1)
    cut = statistics([row for _, row in rows], size)
    shards = [statistics([row for user, row in rows if user % 3 == shard], size) for shard in range(3)]
    for one, again, *parts in zip(whole, cut, *shards, strict=True):
        np.testing.assert_array_equal(again, one)
        np.testing.assert_allclose(sum(parts), one, rtol=1e-5)
    assert np.array_equal(whole[0], whole[0].T)
