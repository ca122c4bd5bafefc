"""More people and items than the model may know, as fast as they can be sent: all are taken, in bounded memory."""

import pytest

from bench import overload
from deploy.local.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_new_people_and_items_without_end_are_all_taken_in_bounded_memory(empty_stack: Stack) -> None:
    figures = overload.stream(empty_stack, events=40_000, max_items=2_000)
    assert (figures["taken"], figures["lost"], figures["restarts"]) == (40_000, 0, 0)
    assert figures["within_bounds"]
    assert all(figures[f"{name}_mb"]["largest"] > 100 for name in overload.BOUNDS_MB)
    # One interaction: its item, a count, an event id and RocksDB's own key; a hundred times that would be a leak.
    assert 20 < figures["state_bytes_per_user"] < 2_000
