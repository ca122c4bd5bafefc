"""The job of behaviour on a real broker and cluster: exact counts through lateness, duplicates and a kill."""

import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

from bench.behaviour import DAY_MS, HOUR_MS, LATE_MS, recount, streamed
from deploy.local.stack import Stack
from schema.event import Event
from tests.integration.test_local_stack import messages
from tests.integration.test_recommend_job import operator_metrics
from tests.panels import MEASURED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
START = 1_600_000_000_000
MINUTE_MS = 60_000
DRIFT_AT = START + 5 * DAY_MS
CHANGES_OF_CARTS = {"add_to_cart", "purchase", "remove_from_cart"}


def clicks() -> list[Event]:
    """Forty people over two days, in bursts, who look at things and now and then buy one; one who comes each day for a
    week; and one who, after a hundred things of some categories, takes thirty of others."""
    chance, made = random.Random(3), []

    def add(user: str, kind: str, time: int, item: str) -> None:
        made.append(Event(f"e{len(made)}", user, kind, time, item))

    for user in range(40):
        time = START + chance.randrange(DAY_MS)
        for _ in range(40):
            time += chance.choice([20_000, 60_000, 600_000, 1_800_000, 1_800_001, 7_200_000])
            kind = chance.choices(["view", "add_to_cart", "purchase"], [8, 2, 1])[0]
            add(f"u{user}", kind, time, f"i{chance.randrange(12)}")
    for day in range(7):
        add("daily", "purchase" if day == 2 else "view", START + day * DAY_MS, "i3")
    for n in range(110):
        add("drifting", "view", START + n * MINUTE_MS, f"before{n}")
    for n in range(30):
        add("drifting", "view", DRIFT_AT + n * MINUTE_MS, f"after{n}")
    return made


def segments_at(now: int, events: Iterable[Event]) -> dict[str, str]:
    """By the definitions of docs/behaviour.md."""
    of_users, found = defaultdict(list), {}
    for event in events:
        of_users[event.user_id].append(event)
    for user, own in of_users.items():
        times = [event.timestamp for event in own]
        days = {time // DAY_MS for time in times}
        usual = (max(days) - min(days)) / (len(days) - 1) if len(days) > 1 else 0
        if now - max(times) >= max(3 * usual, 7) * DAY_MS:
            found[user] = "lapsing"
        elif len(days) >= 4 and any(event.event_type == "purchase" for event in own):
            found[user] = "loyal"
        else:
            found[user] = "new" if now - min(times) < 7 * DAY_MS else "regular"
    return found


def carts_left(events: Iterable[Event]) -> dict[str, set[tuple[int, frozenset[str]]]]:
    """Of each person, what was in the cart when nothing had changed it for an hour. Without those whose cart changes
    little later: as events come up to ten minutes late, that may be known before it is told."""
    of_users, found = defaultdict(list), defaultdict(set)
    for event in sorted(events, key=lambda event: event.timestamp):
        if event.event_type in CHANGES_OF_CARTS:
            of_users[event.user_id].append(event)
    for user, own in of_users.items():
        cart: dict[str, int] = {}
        changed = 0
        for event in own:
            item, quiet = event.item_id or "", event.timestamp - changed
            if cart and HOUR_MS <= quiet <= HOUR_MS + 2 * LATE_MS:
                found.pop(user, None)
                break
            if cart and quiet > HOUR_MS:
                found[user].add((max(cart.values()), frozenset(cart)))
                cart = {}
            if event.event_type == "add_to_cart":
                cart[item], changed = event.timestamp, event.timestamp
            elif cart.pop(item, None) is not None:
                changed = event.timestamp
        else:
            if cart:
                found[user].add((max(cart.values()), frozenset(cart)))
    return dict(found)


def test_counts_are_exact_through_lateness_duplicates_and_a_kill(
    empty_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "1000")
    events, categories = clicks(), {f"i{n}": f"c{n % 3}" for n in range(11)}
    categories |= {f"before{n}": f"c{n % 3}" for n in range(110)} | {f"after{n}": f"d{n % 10}" for n in range(30)}
    found = streamed(empty_stack, events, categories)
    expected = recount(events, categories)
    for name, rows in expected.items():
        assert found[name] == rows, name

    # Once nothing has come for two seconds.
    topics = ("segments", "abandoned-carts", "drift")
    told = {topic: messages(empty_stack, topic, count=10_000, seconds=2) for topic in topics}
    now = max(event.timestamp for event in events) + 3 * DAY_MS - LATE_MS
    segments = {one["user_id"]: one["segment"] for one in told["segments"] if one["user_id"] != "~end"}
    assert segments == segments_at(now, events)
    assert set(segments.values()) == {"loyal", "regular", "lapsing"}
    left, told_of = carts_left(events), defaultdict(set)
    for one in told["abandoned-carts"]:
        told_of[one["user_id"]].add((one["last_added_at"], frozenset(one["items"])))
    assert len(left) >= 10
    assert {user: told_of[user] for user in left} == left
    (drift,) = {(one["user_id"], one["since"], frozenset(one["categories"])) for one in told["drift"]}
    assert drift[:2] == ("drifting", DRIFT_AT)
    assert drift[2] <= {f"d{n}" for n in range(10)}
    assert MEASURED["behaviour"] <= operator_metrics(empty_stack).keys()
