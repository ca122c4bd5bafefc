"""Freshness and prequential quality from the records of two topics."""

import math

import pytest

from cli.freshness import AppendedEvent, AppendedList, freshness, lags, percentile, prequential
from schema.recommendation import DEFAULT_USER

pytestmark = pytest.mark.unit


def event(name: str, at: int, user: str = "u", item: str | None = "a") -> AppendedEvent:
    return AppendedEvent(name, user, item, at)


def published(at: int, *items: str, user: str = "u", cause: str | None = None) -> AppendedList:
    return AppendedList(user, cause, items, at)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.99, 5),
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 102), 0.99, 100),
    ],
)
def test_percentile_is_nearest_rank(values: list[int], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_nothing_has_no_percentile_and_no_quality() -> None:
    assert all(map(math.isnan, (percentile([], 0.5), *freshness([], []), *prequential([], []))))


def test_freshness_is_over_the_events_that_have_a_list() -> None:
    events = [event("e1", 100), event("e2", 110), event("e3", 120)]
    lists = [published(150, cause="e2"), published(130, cause="e1"), published(140, cause="other"), published(160)]
    assert sorted(lags(events, lists)) == [30, 40]
    assert freshness(events, lists) == (30, 40)


def test_a_list_that_is_sent_again_does_not_count_twice() -> None:
    assert lags([event("e", 100)], [published(900, cause="e"), published(120, cause="e")]) == [20]


def test_an_event_is_held_against_the_newest_list_before_it() -> None:
    lists = [published(10, "a"), published(20, "b", "a"), published(40, "c")]
    assert prequential([event("e", 30)], lists) == (1, 1 / math.log2(3))
    # The list of the same millisecond may be the event's own consequence.
    assert prequential([event("e", 20)], lists) == (1, 1)
    assert prequential([event("e", 10)], lists) == (0, 0)


def test_the_default_list_serves_unknown_and_erased_users() -> None:
    lists = [published(5, "a", user=DEFAULT_USER), published(10, "b"), AppendedList("u", None, None, 20)]
    assert prequential([event("e", 15)], lists) == (0, 0)
    assert prequential([event("e", 30)], lists) == (1, 1)
    assert prequential([event("e", 30, user="stranger")], lists) == (1, 1)


def test_an_empty_list_is_not_replaced_by_the_default_list() -> None:
    assert prequential([event("e", 30)], [published(5, "a", user=DEFAULT_USER), published(10)]) == (0, 0)


def test_only_the_last_half_and_the_first_k_count() -> None:
    events = [event("e1", 30), event("e2", 40, item="b"), event("e3", 50), event("e4", 60, item="b")]
    lists = [published(10, "a", "b")]
    assert prequential(events, lists) == (1, (1 + 1 / math.log2(3)) / 2)
    assert prequential(events, lists, k=1) == (0.5, 0.5)


def test_events_without_an_item_are_not_judged() -> None:
    assert prequential([event("e1", 10), event("e2", 20), event("e3", 30, item=None)], [published(5, "a")]) == (1, 1)
