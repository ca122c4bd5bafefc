"""The two versions of the co-occurrence score agree."""

import numpy as np
import pytest
import torch

from model.cooccurrence import Cooccurrence, CooccurrenceOptions

pytestmark = pytest.mark.unit


def test_numba_and_torch_add_the_same_neighbours() -> None:
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
    by_torch, by_numba = torch.rand(5, 30), torch.rand(5, 30)
    model._add_neighbours(items, weights, model._query_weights, model.weights, by_torch)
    model.score(items, weights, by_numba)
    assert by_numba.abs().sum() > 0
    torch.testing.assert_close(by_torch, by_numba)
    candidates = np.stack([random.permutation(30)[:6] for _ in range(5)])
    candidates[2, 4] = -1
    scores = model.score_candidates(items, weights, candidates)
    assert (np.abs(scores).sum((1, 2)) > 0).all()
    np.testing.assert_allclose(model._score_candidates(items, weights, candidates), scores, rtol=1e-5)
