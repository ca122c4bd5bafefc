"""User neighbours: those with similar vectors, never oneself; numba and torch agree; state of other bounds is left."""

from zlib import crc32

import numpy as np
import pytest
import torch

from model.arrays import pack_array
from model.matrix_factorization import MatrixFactorizationDelta
from model.user_neighbours import UserNeighbours, UserNeighboursOptions

pytestmark = pytest.mark.unit
USERS, HISTORY, DIMENSIONS, ITEMS = 20, 4, 3, 12


def model_of(nearest: int, items: int = 3) -> UserNeighbours:
    """A model that knows nobody."""
    options = UserNeighboursOptions(nearest, items)
    model = UserNeighbours(options, USERS, HISTORY, DIMENSIONS, torch.device("cpu"))
    model.resize(ITEMS)
    return model


def folded(users: dict[int, tuple[list[int], list[float]]]) -> MatrixFactorizationDelta:
    """People of the reservoir by row: history and vector."""
    histories = np.array([row + [-1] * (HISTORY - len(row)) for row, _ in users.values()])
    vectors = np.array([vector for _, vector in users.values()], np.float32)
    parts = np.array(list(users)), histories, vectors
    return MatrixFactorizationDelta(b"", b"", *map(pack_array, parts))


def test_what_people_with_similar_vectors_took_last_comes_first_and_own_items_never() -> None:
    model = model_of(nearest=2)
    model.apply(folded({1: ([5, 6, 7], [2.0, 0, 0]), 2: ([6, 8], [1.0, 0.5, 0]), 3: ([9], [0, 1.0, 0])}))
    asked = ["me"], torch.tensor([[1.0, 0, 0]])
    assert crc32(b"me") % USERS not in (1, 2, 3)
    # 6 has the second place of the nearest and the first of the other: more than the nearest's first.
    assert model.near(*asked, np.array([[-1, 0]])).tolist() == [[6, 5, 8]]
    assert model.near(*asked, np.array([[6, -1]])).tolist() == [[5, 8, 7]]
    model.apply(folded({crc32(b"me") % USERS: ([10], [1.0, 0, 0]), 2: ([11], [1.0, 0.5, 0])}))
    assert model.near(*asked, np.array([[-1]])).tolist() == [[5, 11, 6]]


def test_nobody_is_near_to_who_has_no_history() -> None:
    model = model_of(nearest=2)
    model.apply(folded({1: ([5, 6, 7], [2.0, 0, 0])}))
    assert (model.near(["new"], torch.zeros(1, DIMENSIONS), np.empty((1, 0), np.int64)) < 0).all()
    assert model_of(nearest=0).near(["new"], torch.ones(1, DIMENSIONS), np.empty((1, 0), np.int64)).shape == (1, 0)


def test_numba_and_torch_find_the_same_and_state_comes_back() -> None:
    random = np.random.default_rng(1)
    model, restored, other = model_of(nearest=6), model_of(nearest=6), model_of(nearest=6)
    people = {
        row: (random.permutation(ITEMS)[: random.integers(1, HISTORY + 1)].tolist(), random.normal(size=DIMENSIONS))
        for row in range(0, USERS, 2)
    }
    model.apply(folded(people))
    restored.load(model.snapshot())
    own = np.sort(random.integers(-1, ITEMS, (5, 3)), 1)[:, ::-1].copy()
    users, queries = [f"u{n}" for n in range(5)], torch.from_numpy(random.normal(size=(5, DIMENSIONS))).float()
    found = model.near(users, queries, own)
    assert (found >= 0).sum() > 5
    np.testing.assert_array_equal(restored.near(users, queries, own), found)
    rows = np.array([crc32(user.encode()) % USERS for user in users])
    by_torch = model._near(queries @ model.vectors.T, rows, own, 6)
    np.testing.assert_array_equal(by_torch, found)
    assert (model._scores == 0).all()
    larger = UserNeighbours(model.options, 2 * USERS, HISTORY, DIMENSIONS, torch.device("cpu"))
    larger.load(model.snapshot())
    assert (larger.histories < 0).all()
    other.load(larger.snapshot())
    assert (other.histories < 0).all()
