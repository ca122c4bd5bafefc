"""Blending and top-k: a known answer, and both versions of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ranking import Indices, _rank_torch, rank

pytestmark = pytest.mark.unit


def of_rows(excluded: list[list[int]]) -> tuple[Indices, Indices]:
    """Columns and bounds as `rank` takes them."""
    columns = np.array([column for row in excluded for column in row], np.int64)
    return columns, np.cumsum([0, *map(len, excluded)])


def test_parts_are_scaled_by_their_maximum_and_each_item_names_its_largest_part() -> None:
    parts = torch.tensor([[[4.0, 2.0, -1.0, 0.0]], [[0.0, 0.5, 0.25, 0.0]]])
    prior = torch.tensor([0.0, 0.0, 0.0, 0.125])
    scores, items, sources = rank(parts, (1.0, 0.75), prior, *of_rows([[]]), 4)
    assert items.tolist() == [[1, 0, 2, 3]]
    assert scores.tolist() == [[1.25, 1.0, 0.375, 0.125]]
    assert sources.tolist() == [[1, 0, 1, 2]]


def test_forbidden_items_are_on_no_list_and_excluded_ones_not_on_their_row_s() -> None:
    parts = torch.arange(1.0, 13.0).reshape(1, 2, 6)
    prior = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -torch.inf])
    scores, items, _ = rank(parts, (1.0,), prior, *of_rows([[4, -1, 3], []]), 5)
    assert [i for i, s in zip(items[0], scores[0], strict=True) if s > -np.inf] == [2, 1, 0]
    assert items[1].tolist() == [4, 3, 2, 1, 0]


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 25))
def test_numba_and_torch_rank_alike(seed: int, items: int, k: int) -> None:
    random = np.random.default_rng(seed)
    parts = torch.from_numpy(random.standard_normal((2, 3, items)).astype(np.float32))
    prior = torch.from_numpy(random.random(items).astype(np.float32) / 100)
    prior[torch.from_numpy(random.random(items) < 0.1)] = -torch.inf
    excluded = of_rows([random.integers(-1, items, 5).tolist(), [], [0]])
    by_numba = rank(parts.clone(), (1.0, 0.3), prior, *excluded, k)
    by_torch = _rank_torch(parts.clone(), (1.0, 0.3), prior, *excluded, min(k, items))
    np.testing.assert_allclose(by_numba[0], by_torch[0], rtol=1e-5)
    listed = by_numba[0] > -np.inf
    np.testing.assert_array_equal(by_numba[1][listed], by_torch[1][listed])
    np.testing.assert_array_equal(by_numba[2][listed], by_torch[2][listed])
