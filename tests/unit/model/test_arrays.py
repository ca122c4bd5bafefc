"""Arrays: the largest values, and which of equals."""

import math

import numpy as np
import pytest

from model.arrays import largest_of

pytestmark = pytest.mark.unit


def test_of_equals_the_lowest_places_are_taken_and_nothing_up_to_the_bound() -> None:
    values = np.array([0.1, -np.inf, 0.4, 0.1, 0.0, 0.1], np.float32)
    assert largest_of(values, 3).tolist() == [0, 2, 3]
    assert largest_of(values, 9).tolist() == [0, 2, 3, 5]
    assert largest_of(values, 5, -math.inf).tolist() == [0, 2, 3, 4, 5]
    assert largest_of(values, 6, -math.inf).tolist() == [0, 2, 3, 4, 5]
