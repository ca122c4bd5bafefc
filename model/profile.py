"""A user's profile: what one person did, bounded, packed into the bytes of one keyed state."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Any, NamedTuple

import msgspec

from model.snapshot import Snapshot
from schema.event import EVENT_TYPES, Event

VERSION = 1
"""The first byte of a packed profile."""
_PROPERTIES, _LONGEST, _LARGEST = 16, 128, 2.0**53

TYPE_INDEX = {name: index for index, name in enumerate(EVENT_TYPES)}
DEFAULT_WEIGHTS = {
    "view": 1.0,
    "add_to_cart": 1.0,
    "favorite": 1.0,
    "purchase": 1.0,
    "rating": 1.0,
    "remove_from_cart": 0.0,
    "search": 0.0,
    "impression": 0.0,
    "dislike": 0.0,
}
"""Confidence of an interaction by event type; 0 teaches nothing and is not kept in the history."""


@dataclass(frozen=True)
class ProfileOptions:
    """Bounds and rules of a profile. Times are milliseconds of event time. A rating whose value is below `liked_from`,
    where that is given, is a dislike. With `gaps` snapshots tell the time between events, which only the sequence model
    reads."""

    max_interactions: int = 200
    max_event_ids: int = 64
    max_items: int = 200
    history_length: int = 50
    allowed_lateness_ms: int = 86_400_000
    exclude: str = "purchased"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    liked_from: float | None = None
    gaps: bool = False


class Profile(msgspec.Struct, array_like=True):
    """The state of one user. The four interaction lists are parallel and in event-time order, oldest first. `segment`,
    empty where it is not known, and `price_sensitive` are what the job of behaviour says of them."""

    items: list[str] = []
    types: list[int] = []
    weights: list[float] = []
    times: list[int] = []
    counters: list[int] = msgspec.field(default_factory=lambda: [0] * len(EVENT_TYPES))
    first_seen: int = 0
    last_seen: int = 0
    event_ids: list[int] = []
    purchased: list[str] = []
    disliked: list[str] = []
    late: int = 0
    segment: str = ""
    price_sensitive: bool = False


class Outcome(NamedTuple):
    """What applying an event did: `accepted` (else a duplicate), `late`, and the interaction's place, -1 for none."""

    accepted: bool
    late: bool
    position: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Profile)


def pack_profile(profile: Profile) -> bytes:
    """The profile as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(profile)


def unpack_profile(packed: bytes) -> Profile:
    """The inverse of `pack_profile`, for every version that was ever written.

    Raises ValueError naming a version that this code does not know.
    """
    if packed[0] != VERSION:
        raise ValueError(f"profile state has version {packed[0]}, this code reads {VERSION}")
    return _decoder.decode(memoryview(packed)[1:])


def event_digest(event_id: str) -> int:
    """Eight bytes of BLAKE2b, enough to tell the recent events of one user apart."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big")


def apply_event(profile: Profile, event: Event, options: ProfileOptions) -> Outcome:
    """Apply one event to the profile in place; an event seen before changes nothing.

    An event out of order is put where its timestamp belongs. One that is more than `allowed_lateness_ms` older than
    the user's newest is counted and learned from no more. Any event type but `erase_user` is taken.
    """
    digest = event_digest(event.event_id)
    if digest in profile.event_ids:
        return Outcome(False, False, -1)
    profile.event_ids.append(digest)
    if len(profile.event_ids) > options.max_event_ids:
        del profile.event_ids[0]
    profile.counters[TYPE_INDEX[event.event_type]] += 1
    late = event.timestamp < profile.last_seen - options.allowed_lateness_ms
    first = sum(profile.counters) == 1
    profile.first_seen = event.timestamp if first else min(profile.first_seen, event.timestamp)
    profile.last_seen = max(profile.last_seen, event.timestamp)
    if late:
        profile.late += 1
        return Outcome(True, True, -1)
    if event.item_id is None:
        return Outcome(True, False, -1)
    rated = event.event_type == "rating" and options.liked_from is not None
    disliked = event.event_type == "dislike"
    if rated and event.value is not None and options.liked_from is not None:
        disliked = event.value < options.liked_from
        taken = zip(profile.items, profile.times, strict=True)
        if disliked and any(item == event.item_id and at > event.timestamp for item, at in taken):
            # They have changed their mind since.
            return Outcome(True, False, -1)
    if event.event_type == "purchase":
        _remember(profile.purchased, event.item_id, options.max_items)
    elif disliked:
        _remember(profile.disliked, event.item_id, options.max_items)
    elif rated and event.item_id in profile.disliked:
        # They have changed their mind.
        profile.disliked.remove(event.item_id)
    weight = 0.0 if rated and disliked else options.weights.get(event.event_type, 0.0)
    if weight <= 0.0:
        return Outcome(True, False, -1)
    position = bisect_right(profile.times, event.timestamp)
    profile.items.insert(position, event.item_id)
    profile.types.insert(position, TYPE_INDEX[event.event_type])
    profile.weights.insert(position, weight)
    profile.times.insert(position, event.timestamp)
    if len(profile.items) > options.max_interactions:
        for column in (profile.items, profile.types, profile.weights, profile.times):
            del column[0]
        position -= 1
    return Outcome(True, False, position)


def merge_profiles(older: Profile, newer: Profile, options: ProfileOptions) -> Profile:
    """What the profile would be had the events of `newer` come after those of `older`; neither is changed. Of what both
    hold within the bounds, that is: an event of one that the other has seen too counts twice."""
    order = sorted(range(len(older.items) + len(newer.items)), key=(older.times + newer.times).__getitem__)
    kept = order[max(len(order) - options.max_interactions, 0) :]
    merged = Profile()
    for name in ("items", "types", "weights", "times"):
        column = getattr(older, name) + getattr(newer, name)
        setattr(merged, name, [column[n] for n in kept])
    for counters in (older.counters, newer.counters):
        for place, count in enumerate(counters):
            merged.counters[place] += count
    merged.first_seen = min((profile.first_seen for profile in (older, newer) if any(profile.counters)), default=0)
    merged.last_seen = max(older.last_seen, newer.last_seen)
    merged.event_ids = (older.event_ids + newer.event_ids)[-options.max_event_ids :]
    for name in ("purchased", "disliked"):
        found = list(getattr(older, name))
        for item in getattr(newer, name):
            _remember(found, item, options.max_items)
        setattr(merged, name, found)
    merged.late = older.late + newer.late
    told = newer if newer.segment else older
    merged.segment, merged.price_sensitive = told.segment, told.price_sensitive
    return merged


def _remember(items: list[str], item_id: str, bound: int) -> None:
    """Move the item to the end of the bounded list."""
    if item_id in items:
        items.remove(item_id)
    items.append(item_id)
    if len(items) > bound:
        del items[0]


def _newest_distinct(profile: Profile, limit: int) -> tuple[list[str], list[float], bytes, bytes, list[int]]:
    """The newest distinct items, newest first; of each its largest weight, the type of its last interaction, how often
    it stands there, at most 255, and the time of its last interaction."""
    newest = profile.items[: -limit - 2 : -1]
    if len(set(newest)) == len(newest):
        # Mostly so, and four times as fast as a look at each interaction.
        end = -min(limit, len(newest)) - 1
        types = bytes(profile.types[:end:-1])
        return newest[:limit], profile.weights[:end:-1], types, b"\1" * len(types), profile.times[:end:-1]
    places: dict[str, int] = {}
    weights: list[float] = []
    times: list[int] = []
    kinds, counts = bytearray(), bytearray()
    for n in range(len(profile.items) - 1, -1, -1):
        item, weight = profile.items[n], profile.weights[n]
        place = places.setdefault(item, len(weights))
        if place < len(weights):
            weights[place] = max(weights[place], weight)
            counts[place] = min(counts[place] + 1, 255)
            continue
        if place == limit:
            del places[item]
            break
        kinds.append(profile.types[n])
        weights.append(weight)
        counts.append(1)
        times.append(profile.times[n])
    return list(places), weights, bytes(kinds), bytes(counts), times


def _gaps(times: list[int]) -> bytes:
    """How many binary digits the time from each to the next older one has. The `times` are newest first."""
    return bytes([(newer - older).bit_length() for newer, older in pairwise([*times, *times[-1:]])])


def plain_properties(event: Event) -> dict[str, str | bool | float]:
    """The properties of an event as far as anything may ask for them."""
    return dict(islice(_plain(event.properties), _PROPERTIES)) if event.properties else {}


def _plain(properties: Mapping[str, Any]) -> Iterator[tuple[str, str | bool | float]]:
    """The properties that are a short text, a number, or true or false: every number as a fraction, so that one
    expression holds for 2 and for 2.5."""
    for name, value in properties.items():
        if len(name) > _LONGEST:
            continue
        if isinstance(value, bool) or (isinstance(value, str) and len(value) <= _LONGEST):
            yield name, value
        elif isinstance(value, int | float) and abs(value) < _LARGEST:
            yield name, float(value)


def erasure(event: Event, appended_at: int) -> Snapshot:
    """What the learner and the scorer need to know of an event `erase_user`."""
    return Snapshot(event.user_id, event.event_id, event.timestamp, appended_at, [], [], erased=True)


def snapshot(profile: Profile, event: Event, outcome: Outcome, appended_at: int, options: ProfileOptions) -> Snapshot:
    """What the learner and the scorer need to know after `event`: the newest `history_length` distinct items.

    An item that stands more than once in the profile is listed once, where it stood last, with its largest weight.
    The event's item is taught only where it is inside that window.
    """
    history, weights, types, counts, times = _newest_distinct(profile, options.history_length)
    now = event.timestamp
    event_index = -1
    if event.item_id is not None and outcome.position >= 0 and event.item_id in history:
        event_index = history.index(event.item_id)
    excluded = profile.disliked
    if options.exclude == "purchased":
        excluded = excluded + profile.purchased
    elif options.exclude == "seen":
        excluded = excluded + profile.purchased + profile.items
    return Snapshot(
        user_id=event.user_id,
        event_id=event.event_id,
        event_timestamp=now,
        appended_at=appended_at,
        history=history,
        weights=weights,
        event_index=event_index,
        item_id=event.item_id,
        excluded=excluded,
        profile_version=sum(profile.counters),
        types=types,
        repeated=event_index >= 0 and counts[event_index] > 1,
        counts=counts,
        ages=bytes([(now - time).bit_length() if time < now else 0 for time in times]),
        last_seen=profile.last_seen,
        gaps=_gaps(times) if options.gaps else b"",
        list_id=event.list_id,
        impression=event.event_type == "impression",
        event_type=event.event_type,
        properties=plain_properties(event),
        behaviour=profile.segment,
        price_sensitive=profile.price_sensitive,
    )
