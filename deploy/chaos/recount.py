"""What the job must have counted, found again from the topic `events` by nothing of the job's own code."""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deploy.chaos.load import MALFORMED, POISON

_KEPT, _WINDOW, _DAY_MS = 200, 50, 86_400_000
_TAUGHT = {"view", "add_to_cart", "favorite", "purchase", "rating"}


@dataclass
class Recount:
    """Accepted events by user, interactions by item, pair statistics, and the places of messages that must be dead
    letters. Rules of the default configuration: an event id counts once; an event a day older than its user's newest
    teaches nothing; the profile keeps the newest 200 interactions, a history the 50 newest distinct items of them; the
    n-th older item of the history counts (1+n)^-1/2 with the event's item."""

    messages: int = 0
    events: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    pairs: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    dead: set[tuple[int, int]] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _times: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _taken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _newest: dict[str, int] = field(default_factory=dict)

    def take(self, records: Iterable[Any]) -> None:
        """Count records of one partition in their order."""
        for record in records:
            self.messages += 1
            if any(name == MALFORMED for name, _ in record.headers or ()):
                self.dead.add((record.partition, record.offset))
                continue
            event = json.loads(record.value)
            if event["event_id"] in self._seen:
                continue
            self._seen.add(event["event_id"])
            self.events[event["user_id"]] += 1
            if event.get("item_id") == POISON:
                self.dead.add((record.partition, record.offset))
            self._interaction(event)

    def _interaction(self, event: dict[str, Any]) -> None:
        user, time, item = event["user_id"], event["timestamp"], event.get("item_id", "")
        newest = self._newest.get(user, time)
        self._newest[user] = max(newest, time)
        if time < newest - _DAY_MS or event["event_type"] not in _TAUGHT:
            return
        times, taken = self._times[user], self._taken[user]
        place = bisect_right(times, time)
        times.insert(place, time)
        taken.insert(place, item)
        if len(times) > _KEPT:
            del times[0], taken[0]
            place -= 1
        history = list(dict.fromkeys(reversed(taken)))[:_WINDOW]
        if place < 0 or item not in history or item == POISON:
            return
        self.items[item] += 1
        for rank, older in enumerate(history[history.index(item) + 1 :]):
            self.pairs[item, older] += (1 + rank) ** -0.5
            self.pairs[older, item] += (1 + rank) ** -0.5


def compare(expected: dict[Any, float], counted: dict[Any, float]) -> tuple[int, int]:
    """How many keys were counted too low, and how many too high. Sums of single precision may differ in their last
    digits; one interaction more or less makes a difference of at least 1/7."""
    lost = doubled = 0
    for key in expected.keys() | counted.keys():
        ought, is_ = expected.get(key, 0.0), counted.get(key, 0.0)
        tolerance = 0.01 + 1e-5 * ought
        lost += is_ < ought - tolerance
        doubled += is_ > ought + tolerance
    return lost, doubled
