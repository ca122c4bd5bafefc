"""Keyed by user: who might get an offer, what is known of them, and what came of offers."""

import time
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from model.profile import event_digest
from operators.state import kept_for
from schema.behaviour import PersonSegment, decode_behaviour
from schema.errors import MessageError
from schema.event import Event, EventParser

CANDIDATE = Types.ROW_NAMED(["user_id", "candidate"], [Types.STRING(), Types.PICKLED_BYTE_ARRAY()])
CANDIDATES = Types.ROW([Types.LONG(), CANDIDATE])
EVENT, SEGMENT = 0, 1
SHARDS = range(16)
"""Keys of the fan-out. They do not follow the parallelism, so that each finds its campaigns after a change of it."""
_DAY_MS, _RECENT_IDS = 86_400_000, 64


class Candidate(msgspec.Struct, array_like=True):
    """What a campaign is told: a person did something of this type at this time, with what is known of them."""

    event_type: str
    time_ms: int
    segment: str
    values: dict[str, float | str]


class _Known(msgspec.Struct, array_like=True):
    counts: dict[str, int] = {}
    spend: float = 0.0
    first_ms: int = -1
    last_ms: int = -1
    segment: str = ""
    price_sensitive: bool = False
    event_ids: list[int] = []


_VERSION = 1
_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Known)


class CampaignCandidatesFunction(KeyedProcessFunction):
    """In: Row(kind, payload) of events and of the topic `segments`. Out: Row(shard, Row(user_id, packed `Candidate`)).
    What is malformed is left out, and so are events without consent.

    Keyed state `known`: counts by type of event, spending, times and the person's segment, kept for `ttl_days`.
    """

    def __init__(self, parser: Callable[[], EventParser], shards: Sequence[int], ttl_days: float) -> None:
        self._make_parser, self._shards, self._ttl_days = parser, shards, ttl_days

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state."""
        self._parser = self._make_parser()
        self._state = runtime_context.get_state(kept_for(self._ttl_days, "known"))

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Take an event, or what segment the person is of."""
        kind, payload = value
        payload, user_id, packed = (
            None if payload is None else bytes(payload),
            ctx.get_current_key(),
            self._state.value(),
        )
        known = _Known() if packed is None else _unpacked(packed)
        if kind == SEGMENT and payload is None and packed is None:
            return
        try:
            if kind == SEGMENT:
                found = None if payload is None else decode_behaviour(payload, PersonSegment)
                known.segment = "" if found is None else found.segment
                known.price_sensitive = found is not None and found.price_sensitive
                if found is None and known.first_ms < 0:
                    # Nothing else is known of them: they were erased.
                    self._state.clear()
                    return
            else:
                event = self._parser.parse(payload, int(time.time() * 1000))
                shard = self._shards[crc32(user_id.encode()) % len(self._shards)]
                if event.event_type == "erase_user":
                    self._state.clear()
                    gone = Candidate(event.event_type, event.timestamp, "", {})
                    yield Row(shard, Row(user_id, msgspec.msgpack.encode(gone)))
                    return
                digest = event_digest(event.event_id)
                if not event.consent or digest in known.event_ids:
                    return
                known.event_ids = [*known.event_ids, digest][-_RECENT_IDS:]
                told = Candidate(event.event_type, event.timestamp, known.segment, _values(known, event))
                yield Row(shard, Row(user_id, msgspec.msgpack.encode(told)))
                _count(known, event)
        except MessageError:
            return
        self._state.update(bytes((_VERSION,)) + _encoder.encode(known))


def _unpacked(packed: bytes) -> _Known:
    if packed[0] != _VERSION:
        raise ValueError(f"state of a candidate has version {packed[0]}, this code reads {_VERSION}")
    return _decoder.decode(memoryview(packed)[1:])


def _count(known: _Known, event: Event) -> None:
    known.counts[event.event_type] = known.counts.get(event.event_type, 0) + 1
    if event.event_type == "purchase":
        known.spend += (event.price or 0.0) * (1.0 if event.quantity is None else event.quantity)
    known.first_ms = event.timestamp if known.first_ms < 0 else min(known.first_ms, event.timestamp)
    known.last_ms = max(known.last_ms, event.timestamp)


def _values(known: _Known, event: Event) -> dict[str, float | str]:
    """What is known of the person before the event, by name."""
    values: dict[str, float | str] = {f"{kind}s": float(number) for kind, number in known.counts.items()}
    values |= {"spend": known.spend, "doing": event.event_type, "segment": known.segment}
    values["price_sensitive"] = str(known.price_sensitive)
    if known.first_ms >= 0:
        values["days_known"] = max(event.timestamp - known.first_ms, 0) / _DAY_MS
        values["days_away"] = max(event.timestamp - known.last_ms, 0) / _DAY_MS
    return values
