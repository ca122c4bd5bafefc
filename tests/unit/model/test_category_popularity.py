"""Popularity in a category: the most popular items, however the events came, of the categories seen last."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.category_popularity import CategoryPopularity, CategoryPopularityOptions

pytestmark = pytest.mark.unit
OPTIONS = CategoryPopularityOptions(items=3, categories=2, recent=4)
CATEGORY = np.array([0, 0, 0, 0, 0, 1, 1, -1, 2, 2], np.int32)


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=20))
def test_the_most_popular_stand_first_however_the_events_came(batches: list[list[int]]) -> None:
    live, restored = CategoryPopularity(OPTIONS), CategoryPopularity(OPTIONS)
    sums = np.zeros(10, np.float32)
    for batch in batches:
        np.add.at(sums, batch, 1)
        live.follow(np.array(batch), sums, CATEGORY)
    restored.rebuild(sums, CATEGORY)
    np.testing.assert_array_equal(live.best[: len(restored.best)], restored.best[: len(live.best)])
    for category, row in enumerate(live.best):
        known = [item for item in np.lexsort((np.arange(10), -sums)) if CATEGORY[item] == category and sums[item]]
        assert row.tolist() == (known + [-1] * 3)[:3]


def test_near_are_those_of_the_categories_that_come_first_in_the_history() -> None:
    model = CategoryPopularity(OPTIONS)
    sums = np.array([1, 5, 2, 4, 3, 1, 0, 9, 1, 2], np.float32)
    model.rebuild(sums, CATEGORY)
    near = model.near(np.array([[7, 9, -1, 8, 5], [6, 0, 1, 8, -1], [7, -1, -1, -1, 5]]), CATEGORY)
    assert near.tolist() == [[9, 8, -1, -1, -1, -1], [5, -1, -1, 1, 3, 4], [-1] * 6]
    assert CategoryPopularity(OPTIONS).near(np.array([[1, 2]]), CATEGORY).shape == (1, 0)


def test_an_item_is_known_by_its_share_of_the_most_popular_of_its_category() -> None:
    model, candidates = CategoryPopularity(OPTIONS), np.array([[0, 1, 6, 7], [8, 9, 5, -1]])
    sums = np.array([1, 5, 2, 4, 3, 1, 0, 9, 1, 2], np.float32)
    assert not model.score_candidates(candidates, sums, CATEGORY).any()
    model.rebuild(sums, CATEGORY)
    found = model.score_candidates(candidates, sums, CATEGORY)
    assert found == pytest.approx(np.array([[0.2, 1, 0, 0], [0.5, 1, 1, 0]]))
