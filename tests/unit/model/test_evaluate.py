"""Prequential evaluation: known answers, the same twice, and no list that knows the future."""

import random

import pytest

from model.blend import BlendOptions
from model.evaluate import Report, evaluate
from model.profile import ProfileOptions
from schema.event import Event

pytestmark = pytest.mark.unit


def event(number: int, user: str, item: str, event_type: str = "view") -> Event:
    return Event(str(number), user, event_type, 1_600_000_000_000 + 1000 * number, item)


def replay(events: list[Event], exclude_seen: bool = False) -> tuple[Report, list[list[str]]]:
    """The report, and the list before each event."""
    lists: list[list[str]] = []
    report = evaluate(
        events, 5, exclude_seen, ProfileOptions(), BlendOptions(), lambda _, __, items: lists.append(items)
    )
    return report, lists


def test_lists_are_the_same_twice_and_know_nothing_of_later_events() -> None:
    chance = random.Random(1)
    first = [event(n, f"u{chance.randrange(6)}", f"i{chance.randrange(15)}") for n in range(120)]
    second = [event(120 + n, f"u{n % 6}", f"j{n}") for n in range(30)]
    _, lists = replay(first + second)
    assert replay(first + second)[1] == lists
    assert replay(first)[1] == lists[:120]


def test_a_pair_that_always_comes_together_is_found_and_counted() -> None:
    events = []
    for user in range(20):
        events += [event(2 * user, f"u{user}", "bread"), event(2 * user + 1, f"u{user}", "butter", "purchase")]
    report, lists = replay(events, exclude_seen=True)
    assert lists[0] == []
    # Each butter of the last half stands first on the list after bread; bread is on the list of every new user.
    assert report.carts_and_purchases.means() == {"events": 10, "hit": 1.0, "ndcg": 1.0, "mrr": 1.0}
    assert report.all.events == 20
    assert report.all.hit == 20
    assert report.coverage == 1.0


def test_seen_items_are_left_out_only_where_asked() -> None:
    events = [event(n, "u", f"i{n % 3}") for n in range(12)]
    assert "i0" in replay(events)[1][-1]
    assert replay(events, exclude_seen=True)[1][-1] == []
