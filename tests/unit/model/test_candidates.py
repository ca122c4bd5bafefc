"""Candidates: a known answer, and both versions of the search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.candidates import (
    Asked,
    Indices,
    Neighbourhoods,
    _find_candidates_torch,
    _largest_columns,
    find_candidates,
    find_candidates_among,
)
from tests.devices import DEVICES

pytestmark = pytest.mark.unit


NONE = np.empty((2, 0), np.int64)


def of_rows(excluded: list[list[int]]) -> tuple[Indices, Indices]:
    """Columns and bounds as `find_candidates` takes them."""
    columns = np.array([column for row in excluded for column in row], np.int64)
    return columns, np.cumsum([0, *map(len, excluded)])


def test_own_items_come_with_their_places_and_the_best_others_beside_them() -> None:
    parts = torch.tensor([[[4.0, 2.0, -1.0, 0.0, 3.0]], [[0.0, 0.5, 0.25, 0.0, 0.0]]])
    prior = torch.tensor([0.0, 0.0, 0.0, 0.125, 0.0])
    found = find_candidates(
        parts.numpy(), (1.0, 0.75), prior, Asked(*of_rows([[4]]), np.array([[3, 4, -1]]), NONE[:1], 2)
    )
    columns = {int(item): column for column, item in enumerate(found.items[0]) if item >= 0}
    assert columns.keys() == {3, 0, 1}
    assert [found.places[0, columns[item]] for item in (3, 0, 1)] == [0, -1, -1]
    assert found.shares[:, 0, columns[1]].tolist() == [0.5, 1.0, 0.0]
    assert found.shares[:, 0, columns[3]].tolist() == [0.0, 0.0, 0.125]


def test_an_extra_item_is_a_candidate_whatever_its_score_and_only_once() -> None:
    parts = torch.tensor([[[4.0, 2.0, 1.0, 0.0, 3.0]]])
    extra = np.array([[3, 4, 0, 2, 3, -1]])
    for table in (parts.clone(), parts.numpy()):
        found = find_candidates(table, (1.0,), torch.zeros(5), Asked(*of_rows([[2]]), np.array([[4]]), extra, 1))
        assert sorted(found.items[0].tolist()) == [-1, -1, -1, -1, 0, 1, 3, 4]
        assert found.places[0, found.items[0] == 4].tolist() == [0]


def test_forbidden_items_are_nobody_s_candidates_and_excluded_ones_not_their_row_s() -> None:
    parts = torch.arange(1.0, 13.0).reshape(1, 2, 6)
    prior = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -torch.inf])
    found = find_candidates(
        parts.numpy(), (1.0,), prior, Asked(*of_rows([[4, -1, 3], []]), np.array([[5], [-1]]), NONE, 9)
    )
    assert set(found.items[0].tolist()) == {0, 1, 2, -1}
    assert set(found.items[1].tolist()) == {0, 1, 2, 3, 4, -1}


@settings(max_examples=40)
@pytest.mark.parametrize("device", DEVICES)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 25))
def test_numba_and_torch_find_the_same(device: str, seed: int, items: int, count: int) -> None:
    random = np.random.default_rng(seed)
    parts = torch.from_numpy(random.standard_normal((2, 3, items)).astype(np.float32))
    prior = torch.from_numpy(random.random(items).astype(np.float32) / 100)
    prior[torch.from_numpy(random.random(items) < 0.1)] = -torch.inf
    excluded = of_rows([random.integers(-1, items, 5).tolist(), [], [0]])
    own = np.array([random.permutation(np.append(np.arange(items), -np.ones(4, np.int64)))[:4] for _ in range(3)])
    extra = np.array([random.permutation(np.append(np.arange(items), [-1] * 6))[:6] for _ in range(3)])
    by_numba = find_candidates(parts.clone().numpy(), (1.0, 0.3), prior, Asked(*excluded, own, extra, count))
    there = parts.to(device, copy=True), (1.0, 0.3), prior.to(device)
    by_torch = _find_candidates_torch(*there, Asked(*excluded, own, extra, count))
    for row in range(3):
        one, other = np.argsort(by_numba.items[row]), np.argsort(by_torch.items[row])
        np.testing.assert_array_equal(by_numba.items[row, one], by_torch.items[row, other])
        np.testing.assert_array_equal(by_numba.places[row, one], by_torch.places[row, other])
        np.testing.assert_allclose(by_numba.shares[:, row, one], by_torch.shares[:, row, other], rtol=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 25))
def test_among_all_items_the_same_is_found_as_in_the_whole_catalogue(seed: int, items: int, count: int) -> None:
    random = np.random.default_rng(seed)
    queries, vectors = (random.standard_normal((size, 8)).astype(np.float32) for size in (3, items))
    scores = (random.random((3, items)) * (random.random((3, items)) < 0.5)).astype(np.float32)
    prior = random.random(items).astype(np.float32) / 100
    prior[random.random(items) < 0.1] = -np.inf
    excluded = of_rows([random.integers(-1, items, 5).tolist(), [], [0]])
    own = np.array([random.permutation(np.append(np.arange(items), -np.ones(4, np.int64)))[:4] for _ in range(3)])
    extra = np.array([random.permutation(np.append(np.arange(items), [-1] * 6))[:6] for _ in range(3)])
    asked = Asked(*excluded, own, extra, count)
    learned = random.random(items) < 0.7
    whole = find_candidates(np.stack([scores, queries @ vectors.T * learned]), (1.0, 0.3), prior, asked)
    known = Neighbourhoods(
        np.cumsum([0, *(scores > 0).sum(1)]), np.concatenate([*map(np.flatnonzero, scores)]), scores[scores > 0]
    )
    # Half of them stand among the popular, the others are known to the first model or extra.
    popular = np.setdiff1d(np.arange(items), np.flatnonzero((scores > 0).all(0)))
    found = find_candidates_among(known, queries, vectors, learned, popular, (1.0, 0.3), prior, asked)
    for row in range(3):
        one, other = np.argsort(whole.items[row]), np.argsort(found.items[row])
        np.testing.assert_array_equal(whole.items[row, one], found.items[row, other])
        np.testing.assert_array_equal(whole.places[row, one], found.places[row, other])
        np.testing.assert_allclose(whole.shares[:, row, one], found.shares[:, row, other], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@given(st.integers(0, 1000), st.integers(1, 3000), st.integers(1, 9))
def test_the_largest_columns_by_blocks_are_those_of_a_search_of_all(
    device: str, seed: int, columns: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = torch.rand(3, columns, generator=generator)
    total[0, torch.rand(columns, generator=generator) < 0.9] = -torch.inf
    total = total.to(device)
    values, found = _largest_columns(total, min(count, columns))
    assert torch.equal(values, torch.topk(total, min(count, columns)).values)
    assert torch.equal(total.gather(1, found), values)
    assert all(len(set(row)) == len(row) for row in found.tolist())
