import pytest

from operators.catch_up import CatchUp

pytestmark = pytest.mark.unit
NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("age", "wait"), [(0, 0), (500, 0), (501, 125), (4_000, 1_000), (8_000, 2_000), (86_400_000, 2_000), (-50, 0)]
)
def test_a_batch_waits_by_how_far_it_is_behind(age: int, wait: int) -> None:
    assert CatchUp(500).due(3, NOW - age, NOW) == NOW + wait


def test_what_comes_while_a_batch_waits_is_due_with_it() -> None:
    catch_up = CatchUp(500)
    due = catch_up.due(3, NOW - 4_000, NOW)
    assert catch_up.due(3, NOW, NOW + 10) == due
    assert catch_up.due(4, NOW, NOW + 10) == NOW + 10
    assert catch_up.due(3, NOW, due + 7) == due + 7


def test_a_clock_set_back_makes_no_longer_wait() -> None:
    catch_up = CatchUp(500)
    catch_up.due(3, NOW - 8_000, NOW)
    assert catch_up.due(3, NOW, NOW - 3_600_000) == NOW - 3_600_000 + 2_000


def test_once_served_a_shard_begins_anew() -> None:
    catch_up = CatchUp(500)
    catch_up.due(3, NOW - 4_000, NOW)
    catch_up.served(3)
    assert catch_up.due(3, NOW - 100, NOW) == NOW


def test_a_target_of_0_never_waits() -> None:
    assert CatchUp(0).due(3, NOW - 86_400_000, NOW) == NOW
