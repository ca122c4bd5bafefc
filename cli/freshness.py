"""What a run is judged by, computed from the records of two topics: freshness, and prequential hit and nDCG."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from schema.recommendation import DEFAULT_USER


class AppendedEvent(msgspec.Struct, frozen=True):
    """An event and when the broker appended it (epoch ms)."""

    event_id: str
    user_id: str
    item_id: str | None
    appended_ms: int


class AppendedList(msgspec.Struct, frozen=True):
    """A list, when the broker appended it, and the event that caused it. `items` is None after an erasure."""

    user_id: str
    event_id: str | None
    items: tuple[str, ...] | None
    appended_ms: int


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank); NaN of nothing."""
    ordered = sorted(values)
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else math.nan


def lags(events: Iterable[AppendedEvent], lists: Iterable[AppendedList]) -> list[int]:
    """Milliseconds from an event's append to that of the first list carrying its id, for the events that have one."""
    appended = {event.event_id: event.appended_ms for event in events}
    return [
        published.appended_ms - start
        for published in sorted(lists, key=lambda published: published.appended_ms)
        if published.event_id is not None and (start := appended.pop(published.event_id, None)) is not None
    ]


def freshness(events: Iterable[AppendedEvent], lists: Iterable[AppendedList]) -> tuple[float, float]:
    """p50 and p99 of `lags`, NaN where no list carries any of the events' ids."""
    found = lags(events, lists)
    return percentile(found, 0.5), percentile(found, 0.99)


def prequential(events: Sequence[AppendedEvent], lists: Iterable[AppendedList], k: int = 20) -> tuple[float, float]:
    """Hit rate and nDCG at k over the last half of the events: what a visitor saw just before acting.

    An event is held against its user's newest list appended before it; where there is none, or it was erased, against
    the newest default list; where there is none of those either, it is a miss. NaN without events.
    """
    times: defaultdict[str, list[int]] = defaultdict(list)
    contents: defaultdict[str, list[tuple[str, ...] | None]] = defaultdict(list)
    for published in sorted(lists, key=lambda published: published.appended_ms):
        times[published.user_id].append(published.appended_ms)
        contents[published.user_id].append(published.items)

    def newest(key: str, before_ms: int) -> tuple[str, ...] | None:
        position = bisect_left(times[key], before_ms) if key in times else 0
        return contents[key][position - 1] if position else None

    ordered = sorted(events, key=lambda event: event.appended_ms)
    judged = [event for event in ordered[len(ordered) // 2 :] if event.item_id is not None]
    hits, gain = 0, 0.0
    for event in judged:
        shown = newest(event.user_id, event.appended_ms)
        if shown is None:
            shown = newest(DEFAULT_USER, event.appended_ms) or ()
        if event.item_id in shown[:k]:
            hits += 1
            gain += 1 / math.log2(shown.index(event.item_id) + 2)
    return (hits / len(judged), gain / len(judged)) if judged else (math.nan, math.nan)
