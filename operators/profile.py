"""Keyed by user: validates an event, applies it to the user's profile, and hands on one snapshot."""

import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from model.profile import (
    Profile,
    ProfileOptions,
    apply_event,
    erasure,
    event_digest,
    merge_profiles,
    pack_profile,
    snapshot,
    unpack_profile,
)
from model.snapshot import pack_snapshot
from operators.dead_letters import DeadLetters
from operators.profile_cache import ProfileCache
from operators.receipts import RECEIPTS
from operators.state import kept_for
from schema.behaviour import PersonSegment, decode_behaviour
from schema.erasure import receipt
from schema.errors import MessageError, shown
from schema.event import IMPORT_PROFILE, Event, EventParser
from schema.pseudonym import pseudonym

_SESSION_BYTES, _SESSION_MS = 8 * 2**20, 1_800_000
EVENT, UNKEYED, SEGMENT = "u", "", "s"
"""Kinds of messages."""
SNAPSHOTS = Types.ROW_NAMED(["shard", "request"], [Types.LONG(), Types.PRIMITIVE_ARRAY(Types.BYTE())])


class ProfileFunction(KeyedProcessFunction):
    """In: Row(kind, payload, partition, offset, appended_at): an event of a user, one that is keyed by none, as Flink
    reads less of what JSON allows than the parser, or a message of the topic `segments`. Out: Row(shard, packed
    Snapshot), dead letters, and receipts of erasure.

    Keyed state `profile`: one packed `model.profile.Profile`, kept for `ttl_days` after the user's last event. Events
    without consent go to a profile of their session instead, which is in no state and forgotten after half an hour. A
    profile that `headrace bootstrap` sends is put under the user's own.
    """

    def __init__(
        self,
        options: ProfileOptions,
        parser: Callable[[], EventParser],
        topic: str,
        shards: Sequence[int],
        ttl_days: float,
        cache_mb: int,
        pseudonym_key: bytes | None,
    ) -> None:
        self._options, self._make_parser, self._topic = options, parser, topic
        self._shards, self._ttl_days, self._cache_mb = shards, ttl_days, cache_mb
        self._pseudonym = pseudonym_key

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the counters."""
        self._parser = self._make_parser()
        ttl_ms = int(self._ttl_days * 86_400_000)
        self._cache = ProfileCache(self._cache_mb * 2**20, ttl_ms)
        self._sessions = ProfileCache(_SESSION_BYTES, _SESSION_MS)
        self._state = runtime_context.get_state(kept_for(self._ttl_days, "profile"))
        self._metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._accepted = self._metrics.counter("events_accepted")
        self._late = self._metrics.counter("events_late")
        self._duplicate = self._metrics.counter("events_duplicate")
        self._session_only = self._metrics.counter("events_session_only")
        self._dead_letters = DeadLetters(self._metrics)

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[object]:
        """Apply one event, or take what segment the user is of."""
        kind, payload, partition, offset, appended_at = value
        payload = None if payload is None else bytes(payload)
        now = int(time.time() * 1000)
        if kind == SEGMENT:
            self._take_segment(ctx.get_current_key(), payload, now)
            return
        try:
            event = self._parser.parse(payload, now)
            if kind == UNKEYED:
                raise MessageError("unkeyed", "user_id", shown(event.user_id), "Flink finds none in this message")
        except MessageError as error:
            if self._pseudonym is None:
                yield self._dead_letters.of(error, self._topic, partition, offset, payload)
            else:
                # Payload and faulty value stay where they are: either may name the user.
                said = error.code, f"{error.field or 'message'}: {error.reason or error.code}"
                yield self._dead_letters.of(said, self._topic, partition, offset, None)
            return
        if self._pseudonym is not None:
            event.user_id = pseudonym(self._pseudonym, event.user_id)
        shard = self._shards[crc32(event.user_id.encode()) % len(self._shards)]
        if event.event_type == "erase_user":
            self._state.clear()
            self._cache.remove(event.user_id)
            self._sessions.remove_all(f"{event.user_id}\0")
            self._accepted.inc()
            taken = erasure(event, appended_at)
            taken.partition, taken.offset = partition, offset
            yield Row(shard, pack_snapshot(taken))
            yield RECEIPTS, Row(receipt(event.event_id, "profile"))
            return
        if event.event_type == IMPORT_PROFILE:
            try:
                self._import(event, now)
            except MessageError as error:
                yield self._dead_letters.of(error, self._topic, partition, offset, payload)
            return
        if not event.consent:
            yield from self._serve_session(event, shard, now, appended_at)
            return
        profile = self._profile_of(event.user_id, now)
        outcome = apply_event(profile, event, self._options)
        if not outcome.accepted:
            self._duplicate.inc()
            return
        self._accepted.inc()
        if outcome.late:
            self._late.inc()
        self._keep(event.user_id, now, profile)
        taken = snapshot(profile, event, outcome, appended_at, self._options)
        taken.partition, taken.offset = partition, offset
        yield Row(shard, pack_snapshot(taken))

    def _profile_of(self, user_id: str, now: int) -> Profile:
        """That of the current key, an empty one where there is none."""
        packed = self._cache.get(user_id, now) or self._state.value()
        return Profile() if packed is None else unpack_profile(packed)

    def _keep(self, user_id: str, now: int, profile: Profile) -> None:
        packed = pack_profile(profile)
        self._state.update(packed)
        self._cache.put(user_id, now, packed)

    def _take_segment(self, user_id: str, payload: bytes | None, now: int) -> None:
        """It shows on the next list. What is malformed is left out: the topic is our own."""
        try:
            told = None if payload is None else decode_behaviour(payload, PersonSegment)
        except MessageError:
            return
        profile = self._profile_of(user_id, now)
        if told is None and not any(profile.counters):
            # Erased, and what was said of them before may have come after that.
            self._state.clear()
            self._cache.remove(user_id)
            return
        profile.segment = "" if told is None else told.segment
        profile.price_sensitive = told is not None and told.price_sensitive
        self._keep(user_id, now, profile)

    def _import(self, event: Event, now: int) -> None:
        """Put a profile of what was before under the one that is there. The same again changes nothing."""
        found = (event.properties or {}).get("profile")
        try:
            imported = unpack_profile(b64decode(str(found), validate=True))
        except (ValueError, IndexError, msgspec.DecodeError) as error:
            raise MessageError("bad_profile", "properties.profile", shown(found), str(error)) from None
        profile = self._profile_of(event.user_id, now)
        digest = event_digest(event.event_id)
        if digest in profile.event_ids:
            self._duplicate.inc()
            return
        merged = merge_profiles(imported, profile, self._options)
        merged.event_ids = [*merged.event_ids, digest][-self._options.max_event_ids :]
        self._accepted.inc()
        self._keep(event.user_id, now, merged)

    def _serve_session(self, event: Event, shard: int, now: int, appended_at: int) -> Iterator[Row]:
        session = f"{event.user_id}\0{event.session_id or ''}"
        packed = self._sessions.get(session, now)
        profile = Profile() if packed is None else unpack_profile(packed)
        outcome = apply_event(profile, event, self._options)
        if not outcome.accepted:
            self._duplicate.inc()
            return
        self._session_only.inc()
        self._sessions.put(session, now, pack_profile(profile))
        taken = snapshot(profile, event, outcome, appended_at, self._options)
        # Teaches nothing, is tested by nothing, and is no version of the profile.
        taken.event_index, taken.item_id, taken.profile_version, taken.session_only = -1, None, 0, True
        yield Row(shard, pack_snapshot(taken))
