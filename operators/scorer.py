"""Keyed by shard: follows the learner's model by deltas and makes the lists of each micro-batch."""

import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor

from operators.worker import prepare_worker  # isort: skip, numba comes in with the models
from model.blend import LOOKED_UP, BlendOptions, Recommender
from model.delta import unpack_delta
from model.learned_blend import LearnedBlend
from model.ranked_list import RankedList
from model.snapshot import Snapshot, unpack_snapshot
from operators.dead_letters import DeadLetters
from operators.receipts import RECEIPTS
from operators.taste_segments import TASTE_SEGMENTS
from operators.waiting_people import Request, Waiting, WaitingPeople
from schema.erasure import receipt
from schema.recommendation import (
    DEFAULT_USER,
    Recommendation,
    ScoredItem,
    default_user,
    encode_recommendation,
    is_default,
)
from schema.taste_segment import TasteSegment, encode_taste_segment

LISTS = Types.ROW([Types.MAP(Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE()))])
_RETRY_MS = 20
# Lists are made of so many people at once, and of those without history; in turns of so long. In the pauses what has
# come meanwhile is read.
_PEOPLE, _TURN_S, _PAUSE_MS = LOOKED_UP - 1, 0.05, 10
# Who is late is made later by such a share of it at most, so that more is read.
_GATHERING_SHARE, _LONGEST_MS, _MOMENT_MS = 0.1, 500, 50
_SMOOTHING = 0.001
# How often at most the list for people without history in a context is made.
_CONTEXT_S = 1.0
# What part of the target the network may take.
_SEQUENCE_SHARE = 0.5


class SentList(NamedTuple):
    """The list that a person has: its items, best first, its id, which of its places are known to be seen, and the arms
    that it names."""

    items: list[str]
    list_id: str
    seen: set[int]
    experiments: dict[str, str] | None = None


class Came(NamedTuple):
    """What came since the last turn: how many events, how many of people who waited already, and how late the newest
    was."""

    events: int = 0
    again: int = 0
    late_ms: int = 0


class ScorerFunction(KeyedCoProcessFunction):
    """In: Row(shard, packed snapshots), and Row(whole, made_at, payload) of the learner, which sends it to every
    shard. Out: Row of lists, or None, by user, a dead letter for each event whose list could not be made, a receipt for
    each user whose list was erased, and where there are segments, which one a user is of when it has changed.

    People wait for their lists in the order in which they came, each once, with what is newest of them: so the further
    the job is behind, the more events a list is made of. Mostly nobody waits longer than the batch takes. Who still
    waits when the turn is over is kept in the keyed state `waiting` too, as lists of packed snapshots of which the last
    of each person counts; it may hold some who have been served. What comes before the learner has sent the model after
    a start is there alone.

    The keyed state `blend` holds what the shard has learned about the order of candidates. The lists last sent, and
    what they were made of, are bounded caches: what they lose costs one repeated list, and one lesson.
    """

    recommender: type[Recommender] = Recommender

    def __init__(
        self,
        options: BlendOptions,
        events_topic: str,
        k: int,
        send_unchanged: bool,
        remembered_users: int,
        target_freshness_ms: int,
    ) -> None:
        self._options, self._events_topic, self._k = options, events_topic, k
        self._send_unchanged, self._remembered_users = send_unchanged, remembered_users
        self._target_freshness_ms = target_freshness_ms

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        prepare_worker()
        self._waiting = runtime_context.get_list_state(ListStateDescriptor("waiting", Types.PICKLED_BYTE_ARRAY()))
        self._blend = runtime_context.get_state(ValueStateDescriptor("blend", Types.PICKLED_BYTE_ARRAY()))
        self._blends: dict[int, LearnedBlend] = {}
        self._replica: Recommender | None = None
        # Together they name a list: this run of the operator, and how many lists it has made.
        self._run, self._lists_made = uuid4().hex, 0
        # By shard, as long as the operator runs: who waits, and what came since the last turn. Then the shards of which
        # a turn is due.
        self._people: dict[int, WaitingPeople] = {}
        self._came: defaultdict[int, Came] = defaultdict(Came)
        self._due: set[int] = set()
        # Until when more is read before the next turn, and how much had come when that was looked at.
        self._gathers: dict[int, tuple[float, int]] = {}
        self._sent: OrderedDict[str, SentList] = OrderedDict()
        # When the list of each context was last made, of those that the model tells apart.
        self._context_lists: dict[str, float] = {}
        # The segment that was last told of each person.
        self._segments: OrderedDict[str, int] = OrderedDict()
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._dead_letters = DeadLetters(metrics, "scorer_failed")
        self._lists_sent = metrics.counter("lists_sent")
        self._without_sequence = metrics.counter("lists_without_sequence")
        self._people_waiting = metrics.distribution("people_waiting")
        self._sequence_failures = metrics.distribution("sequence_failures")
        self._batch_size = metrics.distribution("batch_size")
        self._scorer_ms = metrics.distribution("scorer_ms")
        self._freshness_ms = metrics.distribution("freshness_ms")
        self._model_version = metrics.distribution("model_version")
        self._replica_lag_ms = metrics.distribution("replica_lag_ms")
        self._prequential_hit = metrics.distribution("prequential_hit")
        self._prequential_ndcg = metrics.distribution("prequential_ndcg")
        self._hit = self._ndcg = 0.0

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Take one micro-batch, and make lists."""
        shard, requests = value
        requests = [bytes(request) for request in requests]
        if not self._ready():
            self._waiting.add(msgspec.msgpack.encode(requests))
            self._come_again(shard, ctx, _RETRY_MS)
            return
        yield from self._begin(shard)
        came = [(unpack_snapshot(request), request) for request in requests]
        yield from self._received(shard, came)
        if shard not in self._due:
            if gathering := self._gathering(self._came[shard]):
                self._gather(shard, ctx, gathering)
            else:
                yield from self._turn(shard, ctx)
        self._people[shard].keep(came)
        self._blend.update(self._restored(shard).pack())

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Follow the learner."""
        whole, made_at, payload = value
        if whole:
            self._replica = self.recommender.unpack(payload, self._options)
            self._replica.forget_people()
        elif self._replica is not None:
            delta = unpack_delta(payload)
            self._replica.apply(delta)
            if delta.kept:
                for blend in self._blends.values():
                    blend.forget_lists()
        if self._replica is not None:
            self._model_version.update(self._replica.version)
            self._replica_lag_ms.update(int(time.time() * 1000) - made_at)
        yield from ()

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator[Row]:
        """Make the lists of who waits."""
        shard = ctx.get_current_key()
        self._due.discard(shard)
        if not self._ready():
            self._come_again(shard, ctx, _RETRY_MS)
            return
        yield from self._begin(shard)
        until, seen = self._gathers.pop(shard, (0.0, 0))
        left = until - time.time() * 1000
        if left > 0 and self._came[shard].events > seen:
            self._gather(shard, ctx, left)
            return
        yield from self._turn(shard, ctx)
        self._people[shard].keep([])
        self._blend.update(self._restored(shard).pack())

    def _ready(self) -> bool:
        """Whether the model is here and knows an item; before that, an event would get no list at all."""
        return self._replica is not None and len(self._replica.index) > 0

    def _come_again(self, shard: int, ctx: KeyedCoProcessFunction.Context, pause_ms: int) -> None:
        """Have a turn after the pause, if none is due."""
        if shard not in self._due:
            self._due.add(shard)
            ctx.timer_service().register_processing_time_timer(int(time.time() * 1000) + pause_ms)

    def _begin(self, shard: int) -> Iterator[Row]:
        """Take in what `waiting` holds, once after a start."""
        if shard not in self._people:
            self._people[shard] = WaitingPeople(self._waiting)
            yield from self._received(shard, self._people[shard].restored())

    def _turn(self, shard: int, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Serve people for a while, or more of them than are remembered, and come again where some are left."""
        people, until = self._people[shard], time.perf_counter() + _TURN_S
        while people and (time.perf_counter() < until or len(people) > self._remembered_users):
            yield from self._lists(shard, people.take(_PEOPLE))
        came = self._came.pop(shard, Came())
        if people:
            # Who is far behind gains by reading on, as far as it is the same people who come.
            gathering = self._gathering(came) * came.again / max(came.events, 1)
            # Where nothing came, there is nothing to read either.
            self._gather(shard, ctx, max(_PAUSE_MS if came.events else 0, gathering))
        self._people_waiting.update(sum(map(len, self._people.values())))

    def _gathering(self, came: Came) -> float:
        """For how many milliseconds it pays to read on before lists are made: none where what came is in time."""
        late = came.late_ms > self._target_freshness_ms > 0
        return min(_GATHERING_SHARE * came.late_ms, _LONGEST_MS) if late else 0.0

    def _gather(self, shard: int, ctx: KeyedCoProcessFunction.Context, milliseconds: float) -> None:
        """Read on for so long, at most until nothing comes for a moment."""
        self._gathers[shard] = time.time() * 1000 + milliseconds, self._came[shard].events
        self._come_again(shard, ctx, round(min(milliseconds, _MOMENT_MS)))

    def _restored(self, shard: int) -> LearnedBlend:
        if shard not in self._blends:
            packed, options = self._blend.value(), self._options.learned
            # Under differential privacy not even what was learned before it.
            fresh = packed is None or self._options.privacy.noise > 0
            self._blends[shard] = LearnedBlend(options) if fresh else LearnedBlend.unpack(packed, options)
        return self._blends[shard]

    def _received(self, shard: int, came: list[Request]) -> Iterator[Row]:
        """Let people wait for their lists, and learn from how well those that they have did."""
        assert self._replica is not None
        people, blend, again = self._people[shard], self._restored(shard), 0
        for snapshot, request in came:
            user = snapshot.user_id
            if snapshot.erased:
                people.forget(user)
                self._sent.pop(user, None)
                blend.forget(user)
                yield Row({user: None})
                yield RECEIPTS, Row(receipt(snapshot.event_id, "lists"))
                self._segments.pop(user, None)
                if self._options.user_segments.segments:
                    yield TASTE_SEGMENTS, Row(user, None)
                continue
            if snapshot.impression:
                # It changes nothing that a list is made of.
                self._see(snapshot, blend)
                if user in self._sent:
                    continue
            try:
                self._test(snapshot)
                self._replica.feedback(snapshot, blend, self._place(snapshot))
            except Exception as error:
                yield self._dead_letters.of_failure("scorer_failed", error, self._events_topic, snapshot)
                continue
            again += people.put(snapshot, request)
        if came:
            last = self._came[shard]
            late_ms = int(time.time() * 1000) - snapshot.appended_at
            self._came[shard] = Came(last.events + len(came), last.again + again, late_ms)
        # PyFlink's gauges are integers, so the two are in millionths.
        self._prequential_hit.update(int(self._hit * 1_000_000))
        self._prequential_ndcg.update(int(self._ndcg * 1_000_000))

    def _lists(self, shard: int, people: list[Waiting]) -> Iterator[Row]:
        """The lists of people, and those for people without history."""
        assert self._replica is not None
        blend, started, lists = self._restored(shard), time.perf_counter(), dict[str, bytes]()
        oldest = min(waiting.since for waiting in people)
        snapshots = [unpack_snapshot(waiting.packed) for waiting in people]
        strangers = self._strangers(snapshots)
        # Late lists are not to wait for the network, and none is to be late by it alone.
        network = bool(self._options.sequence.network)
        if network and self._too_slow(oldest, len(snapshots)):
            self._without_sequence.inc(len(snapshots))
            network = False
        ranked = self._ranked([*snapshots, *strangers], blend, sequence=network)
        now = int(time.time() * 1000)
        for snapshot in [*snapshots, *strangers]:
            user_id, result = snapshot.user_id, ranked[snapshot.user_id]
            if isinstance(result, Exception):
                yield self._dead_letters.of_failure("scorer_failed", result, self._events_topic, snapshot)
                continue
            if snapshot.session_only:
                result.experiments = None
            if list_id := self._changed(user_id, result.item_ids, result.experiments):
                lists[user_id] = self._encode(snapshot, result, list_id, now)
            # Of who gave no consent nothing is kept.
            segment = None if snapshot.session_only else result.segment
            if segment is not None and self._segment_changed(user_id, segment):
                told = TasteSegment(user_id, segment, now)
                yield TASTE_SEGMENTS, Row(user_id, encode_taste_segment(told))
        if lists:
            yield Row(lists)
        self._lists_sent.inc(len(lists))
        self._batch_size.update(len(snapshots))
        self._freshness_ms.update(now - oldest)
        self._scorer_ms.update(int((time.perf_counter() - started) * 1000))
        self._sequence_failures.update(self._replica.sequence.failures)

    def _strangers(self, snapshots: list[Snapshot]) -> list[Snapshot]:
        """People without history: anybody, and somebody in each context of these people of which enough is known and
        whose list is not of just now."""
        assert self._replica is not None
        last, now = snapshots[-1], time.monotonic()
        anybody = Snapshot(DEFAULT_USER, last.event_id, last.event_timestamp, 0, [], [])
        found = [anybody]
        for said in self._replica.context.well_known(snapshots):
            user = default_user(said)
            if now - self._context_lists.get(user, -math.inf) >= _CONTEXT_S:
                self._context_lists[user] = now
                found.append(msgspec.structs.replace(anybody, user_id=user, properties=said))
        return found

    def _too_slow(self, oldest_ms: int, people: int) -> bool:
        """Whether the network would make lists late, or they are. Each time that it is left out it is thought a little
        faster, so that it is tried again."""
        assert self._replica is not None
        if int(time.time() * 1000) - oldest_ms > self._target_freshness_ms > 0:
            return True
        if self._replica.sequence.reading_time.of(people) > _SEQUENCE_SHARE * self._target_freshness_ms > 0:
            self._replica.sequence.reading_time.doubt(people)
            return True
        return False

    def _ranked(
        self, snapshots: list[Snapshot], blend: LearnedBlend, sequence: bool
    ) -> dict[str, RankedList | Exception]:
        """Each user's list, or what its making failed with. Raises that where a list for people without history
        fails too: then the fault is in no event, and the job starts again."""
        assert self._replica is not None
        users, now = [snapshot.user_id for snapshot in snapshots], int(time.time() * 1000)
        try:
            return dict(zip(users, self._replica.recommend(snapshots, self._k, blend, sequence, now), strict=True))
        except Exception:
            ranked: dict[str, RankedList | Exception] = {}
            for user_id, snapshot in zip(users, snapshots, strict=True):
                try:
                    (ranked[user_id],) = self._replica.recommend([snapshot], self._k, blend, sequence, now)
                except Exception as error:
                    if is_default(user_id):
                        raise
                    ranked[user_id] = error
            return ranked

    def _test(self, snapshot: Snapshot) -> None:
        """Prequential quality: the list that the user has against the event that came."""
        if snapshot.item_id is None or snapshot.impression:
            return
        sent = self._sent.get(snapshot.user_id)
        if sent is None:
            assert self._replica is not None
            context = default_user(self._replica.context.said_in(snapshot.properties))
            sent = self._sent.get(context) or self._sent.get(DEFAULT_USER)
        items = sent.items if sent else []
        hit = snapshot.item_id in items
        gain = 1 / math.log2(items.index(snapshot.item_id) + 2) if hit else 0.0
        self._hit += _SMOOTHING * (hit - self._hit)
        self._ndcg += _SMOOTHING * (gain - self._ndcg)

    def _place(self, snapshot: Snapshot) -> int:
        """Where the event's item stands in the list that led to it, -1 where none did, or it is no longer known."""
        sent = None if snapshot.list_id is None else self._sent.get(snapshot.user_id)
        if sent is None or snapshot.list_id != sent.list_id or snapshot.item_id not in sent.items:
            return -1
        return sent.items.index(snapshot.item_id)

    def _see(self, snapshot: Snapshot, blend: LearnedBlend) -> None:
        """Take note of an impression, once for each place of a list."""
        place = self._place(snapshot)
        if place >= 0 and place not in (seen := self._sent[snapshot.user_id].seen):
            blend.exposure.observe(place, first=not seen)
            seen.add(place)

    def _changed(self, user_id: str, items: list[str], experiments: dict[str, str] | None = None) -> str | None:
        """The id of the list, where it is to be sent: a new one. The first list that names an arm is one too: with it
        people join an experiment, whether the arm changes their list or not."""
        before = self._sent.pop(user_id, None)
        # An empty list is sent where it takes the place of another.
        nothing = not items and (before is None or not before.items)
        same = before is not None and before.items == items and before.experiments == experiments
        if nothing or (same and not self._send_unchanged):
            if before is not None:
                self._sent[user_id] = before
            return None
        self._lists_made += 1
        list_id = f"{self._run}-{self._lists_made}"
        self._sent[user_id] = SentList(items, list_id, set(), experiments)
        if len(self._sent) > self._remembered_users:
            self._sent.popitem(last=False)
        return list_id

    def _segment_changed(self, user_id: str, segment: int) -> bool:
        before = self._segments.pop(user_id, None)
        self._segments[user_id] = segment
        if len(self._segments) > self._remembered_users:
            self._segments.popitem(last=False)
        return before != segment

    def _encode(self, snapshot: Snapshot, ranked: RankedList, list_id: str, now: int) -> bytes:
        assert self._replica is not None
        recommendation = Recommendation(
            user_id=snapshot.user_id,
            list_id=list_id,
            generated_at=now,
            event_id=snapshot.event_id,
            event_timestamp=snapshot.event_timestamp,
            model_version=self._replica.version,
            strategy=_strategy(snapshot),
            items=list(
                map(
                    ScoredItem,
                    ranked.item_ids,
                    ranked.scores,
                    ranked.sources,
                    ranked.because,
                    ranked.propensities,
                    [None] * len(ranked.item_ids) if ranked.rules is None else [r or None for r in ranked.rules],
                    ranked.shared or [None] * len(ranked.item_ids),
                )
            ),
            profile_version=snapshot.profile_version,
            last_seen=snapshot.last_seen or None,
            segment=ranked.segment,
            experiments=ranked.experiments,
        )
        return encode_recommendation(recommendation)


def _strategy(snapshot: Snapshot) -> str:
    if not snapshot.history:
        return "popular"
    return "session" if snapshot.session_only else "personal"
