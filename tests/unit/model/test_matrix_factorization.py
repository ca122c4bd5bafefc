"""Fold-in: the closed form, and both versions of it; and erasure."""

from zlib import crc32

import numpy as np
import pytest
import torch

from model.batch import to_batch
from model.item_index import ItemIndex
from model.matrix_factorization import MatrixFactorization, MatrixFactorizationOptions
from model.snapshot import Snapshot

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("history", [3, 8])
def test_numba_and_torch_fold_in_the_users_of_equation_4(history: int) -> None:
    options = MatrixFactorizationOptions(dimensions=6, query_history=history)
    model = MatrixFactorization(options, torch.device("cpu"))
    model.resize(20)
    model._move(torch.arange(20), torch.randn(20, 6, generator=torch.manual_seed(1)))
    items = np.array([[3, 1, 4, 15, 9], [2, 6, -1, -1, -1], [-1, -1, -1, -1, -1]])
    weights = np.array([[1.0, 2.0, 0.5, 1.0, 3.0], [4.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 5], np.float32)
    decay = model._decay
    found = model.fold_in(items, weights, decay)
    by_torch = model._fold_in(*(torch.from_numpy(array) for array in (items, weights, decay)))
    np.testing.assert_allclose(by_torch.numpy(), found, rtol=1e-5, atol=1e-6)

    # x = (w Y'Y + l I + Y'CY)^-1 Y'C1, row by row in float64.
    vectors = model.vectors.double().numpy()
    shared = options.unobserved * vectors.T @ vectors + options.regularization * np.eye(6)
    for row in range(3):
        known = [n for n in range(min(5, history)) if items[row, n] >= 0]
        chosen = vectors[items[row, known]]
        confidence = (weights[row, known] * decay[known]).astype(np.float64)
        expected = np.linalg.solve(shared + chosen.T @ (confidence[:, None] * chosen), chosen.T @ confidence)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_an_erased_user_leaves_no_row_in_the_reservoir_nor_in_its_statistics() -> None:
    def taken(user: str, history: list[str], erased: bool = False) -> Snapshot:
        return Snapshot(user, "e", 0, 0, history, [1.0] * len(history), -1 if erased else 0, erased=erased)

    model = MatrixFactorization(MatrixFactorizationOptions(step=3, dimensions=4, share_users=True), torch.device("cpu"))
    index = ItemIndex()
    snapshots = [taken(f"u{n}", [f"i{n}", f"i{n + 1}"]) for n in range(5)] + [taken("u1", [], erased=True)]
    batch = to_batch(snapshots, index, learn=True)
    model.resize(len(index))
    delta = model.learn(batch)
    row = crc32(b"u1") % model.options.reservoir
    assert (model._reservoir[row] == -1).all()
    np.testing.assert_allclose(model._user_gram, model._users.astype(float).T @ model._users, atol=1e-6)
    told = np.frombuffer(delta.users, np.int64).tolist()
    last = len(told) - 1 - told[::-1].index(row)
    assert (np.frombuffer(delta.histories, np.int64).reshape(len(told), -1)[last] == -1).all()


def test_one_persons_scores_are_those_of_a_batch() -> None:
    model = MatrixFactorization(MatrixFactorizationOptions(dimensions=8), torch.device("cpu"))
    model.resize(50)
    model.learned[::3] = True
    queries = np.random.default_rng(5).standard_normal((3, 8)).astype(np.float32)
    together, alone = np.empty((2, 3, 50), np.float32)
    model.score(queries, together)
    for row in range(3):
        model.score(queries[row : row + 1], alone[row : row + 1])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    assert (alone[:, 1] == 0).all()
    assert (alone[:, 0] != 0).all()
