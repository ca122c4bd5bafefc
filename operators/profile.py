"""Keyed by user: validates an event, applies it to the user's profile, and hands on one snapshot."""

import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext

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
from model.snapshot import Snapshot, pack_snapshot
from operators.dead_letters import DeadLetters
from operators.micro_batch import CurrentUser, subtask
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
_BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
BATCH = Types.ROW([Types.LONG(), Types.OBJECT_ARRAY(_BYTES)])
SNAPSHOTS = Types.ROW([Types.LONG(), BATCH])
FORMER_SNAPSHOTS = OutputTag("former-snapshots", Types.ROW_NAMED(["shard", "request"], [Types.LONG(), _BYTES]))
"""Where jobs sent them before events came in batches: nothing goes there now."""


class ProfileFunction(KeyedProcessFunction):
    """In: a micro-batch, of each event its user, and its kind, payload, partition, offset and when it was appended; one
    may be keyed by none, as Flink reads less of what JSON allows than the parser, or be a message of the topic
    `segments`. Out: Row(shard, Row(shard, packed Snapshots)), dead letters, and receipts of erasure. The users of a
    subtask are all of one shard.

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
        self._user = CurrentUser(runtime_context)
        self._shard = self._shards[subtask(runtime_context)]
        ttl_ms = int(self._ttl_days * 86_400_000)
        self._cache = ProfileCache(self._cache_mb * 2**20, ttl_ms)
        self._sessions = ProfileCache(_SESSION_BYTES, _SESSION_MS)
        self._state = runtime_context.get_state(kept_for(self._ttl_days, "profile"))
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        names = ("events_accepted", "events_late", "events_duplicate", "events_session_only")
        self._counters = {name: metrics.counter(name) for name in names}
        self._counted: Counter[str] = Counter()
        self._dead_letters = DeadLetters(metrics)

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[object]:
        """Apply events, one after another."""
        snapshots: list[bytes] = []
        for user_id, *event in zip(*value, strict=True):
            self._user.set(user_id)
            for made in self._take(user_id, *event):
                if isinstance(made, Snapshot):
                    snapshots.append(pack_snapshot(made))
                else:
                    yield made
        # Each count is a call into the JVM.
        for name, count in self._counted.items():
            self._counters[name].inc(count)
        self._counted.clear()
        if snapshots:
            yield Row(self._shard, Row(self._shard, snapshots))

    def _take(
        self, user_id: str, kind: str, payload: bytes | None, partition: int, offset: int, appended_at: int
    ) -> Iterator[object]:
        """Apply one event, or take what segment the user is of."""
        payload = None if payload is None else bytes(payload)
        now = int(time.time() * 1000)
        if kind == SEGMENT:
            self._take_segment(user_id, payload, now)
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
        if event.event_type == "erase_user":
            self._state.clear()
            self._cache.remove(event.user_id)
            self._sessions.remove_all(f"{event.user_id}\0")
            self._counted["events_accepted"] += 1
            taken = erasure(event, appended_at)
            taken.partition, taken.offset = partition, offset
            yield taken
            yield RECEIPTS, Row(receipt(event.event_id, "profile"))
            return
        if event.event_type == IMPORT_PROFILE:
            try:
                self._import(event, now)
            except MessageError as error:
                yield self._dead_letters.of(error, self._topic, partition, offset, payload)
            return
        if not event.consent:
            yield from self._serve_session(event, now, appended_at)
            return
        profile = self._profile_of(event.user_id, now)
        outcome = apply_event(profile, event, self._options)
        if not outcome.accepted:
            self._counted["events_duplicate"] += 1
            return
        self._counted["events_accepted"] += 1
        if outcome.late:
            self._counted["events_late"] += 1
        self._keep(event.user_id, now, profile)
        taken = snapshot(profile, event, outcome, appended_at, self._options)
        taken.partition, taken.offset = partition, offset
        yield taken

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
            self._counted["events_duplicate"] += 1
            return
        merged = merge_profiles(imported, profile, self._options)
        merged.event_ids = [*merged.event_ids, digest][-self._options.max_event_ids :]
        self._counted["events_accepted"] += 1
        self._keep(event.user_id, now, merged)

    def _serve_session(self, event: Event, now: int, appended_at: int) -> Iterator[Snapshot]:
        session = f"{event.user_id}\0{event.session_id or ''}"
        packed = self._sessions.get(session, now)
        profile = Profile() if packed is None else unpack_profile(packed)
        outcome = apply_event(profile, event, self._options)
        if not outcome.accepted:
            self._counted["events_duplicate"] += 1
            return
        self._counted["events_session_only"] += 1
        self._sessions.put(session, now, pack_profile(profile))
        taken = snapshot(profile, event, outcome, appended_at, self._options)
        # Teaches nothing, is tested by nothing, and is no version of the profile.
        taken.event_index, taken.item_id, taken.profile_version, taken.session_only = -1, None, 0, True
        yield taken
