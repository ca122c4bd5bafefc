"""Exposure: what a click counts follows from how often its place is seen, and comes back from a state."""

import numpy as np
import pytest

from model.exposure import LARGEST_WEIGHT, Exposure

pytestmark = pytest.mark.unit


def seen(lists: int, *chances: float) -> Exposure:
    """Each place of so many lists seen with its chance, the first always."""
    exposure, random = Exposure(len(chances)), np.random.default_rng(1)
    for _ in range(lists):
        for place in np.flatnonzero(random.random(len(chances)) < chances):
            exposure.observe(int(place), first=bool(place == 0))
    return exposure


def test_a_click_counts_as_much_as_its_place_is_seldom_seen() -> None:
    exposure = seen(5000, 1.0, 0.5, 0.25, 0.0)
    assert [exposure.weight(place) for place in range(3)] == pytest.approx([1, 2, 4], rel=0.1)
    assert exposure.weight(3) == LARGEST_WEIGHT


def test_where_nothing_is_known_or_no_list_led_there_every_click_counts_alike() -> None:
    exposure = Exposure(3)
    assert [exposure.weight(place) for place in (-1, 0, 2, 3)] == [1.0] * 4
    exposure.observe(7, first=True)
    assert exposure.lists == 0


@pytest.mark.parametrize("places", [2, 4, 6])
def test_it_comes_back_for_lists_of_another_length(places: int) -> None:
    before, after = seen(100, 1.0, 0.5, 0.25, 0.1), Exposure(places)
    after.load(before.pack())
    shared = min(places, 4)
    assert [after.weight(n) for n in range(shared)] == [before.weight(n) for n in range(shared)]
    after.load(b"")
    assert after.lists == before.lists
