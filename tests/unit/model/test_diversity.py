"""Diversity: a known answer, and the ends of the scale."""

import numpy as np
import pytest

from model.diversity import diversify

pytestmark = pytest.mark.unit
CHANCES = np.array([[0.5, 0.4, 0.3, 0.2, 0.0]], np.float32)
# The first two are the same item in two colours; the third is half like them, the fourth not at all.
VECTORS = np.array([[[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 0]]], np.float32)


def reordered(diversity: float, k: int = 4) -> tuple[list[int], list[float]]:
    """The columns and chances after."""
    columns, chances = np.array([[7, 8, 9, 3, -1]]), CHANCES.copy()
    diversify(columns, chances, VECTORS.copy(), k, diversity)
    return columns[0].tolist(), chances[0].tolist()


def test_none_leaves_the_order_and_some_moves_what_is_alike_down() -> None:
    assert reordered(0.0) == ([7, 8, 9, 3, -1], CHANCES[0].tolist())
    # After 7: 8 is worth .5 * .8 - .5 * 1, 9 .5 * .6 - .5 * .6, 3 .5 * .4.
    columns, chances = reordered(0.5)
    assert columns == [7, 3, 8, 9, -1]
    assert chances == pytest.approx([0.5, 0.2, 0.4, 0.3, 0])


def test_only_the_first_places_are_chosen_and_the_rest_keeps_its_order() -> None:
    assert reordered(1.0, k=2)[0] == [7, 3, 8, 9, -1]
    assert reordered(1.0, k=1)[0] == [7, 8, 9, 3, -1]
