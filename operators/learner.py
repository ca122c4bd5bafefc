"""One for the whole job: owns the model, learns from every micro-batch, and tells the scorers what changed."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from operators.worker import prepare_worker  # isort: skip, numba comes in with the models
from model.blend import BlendOptions, Recommender
from model.blend import SimilarItems as Similar
from model.delta import CatalogueChange, Delta, Steering, change_of, pack_delta
from model.snapshot import Snapshot, unpack_snapshot
from operators.category_items import CATEGORY_ITEMS
from operators.dead_letters import DeadLetters
from operators.forbidden_items import FORBIDDEN_ITEMS
from operators.former_state import former_map, former_value, number_of, text_of
from operators.receipts import RECEIPTS
from operators.review import REVIEW_QUEUE
from operators.similar import SIMILAR
from operators.training_budget import TrainingBudget
from schema.category_items import CategoryItems, encode_category_items
from schema.erasure import receipt
from schema.errors import MessageError
from schema.experiment import parse_experiment
from schema.forbidden_item import ForbiddenItem, encode_forbidden_item
from schema.item import parse_item
from schema.review import Review, encode_review, parse_decision
from schema.rule import parse_rule
from schema.similar_items import SimilarItem, SimilarItems, encode_similar_items

_MANY, _REVIEW_S, _POPULAR_S = 8, 60.0, 10.0
# So many times as long as packing the model took it is not packed again: it is written too, which takes about as long.
_FOLD_PAUSE = 20.0
TOPIC_STEP = 1_000_000
"""What is added to a partition's number for each topic after that of the items: rules, decisions, experiments."""


class _Message(NamedTuple):
    """A message of one of the tables, with its place there."""

    table: int
    partition: int
    offset: int
    payload: bytes | None


class _Logged(msgspec.Struct, array_like=True):
    """What one batch taught: packed snapshots, and changes of catalogue and rules."""

    requests: list[bytes]
    changes: list[CatalogueChange]
    steering: list[Steering] = []


DELTA = Types.ROW_NAMED(["whole", "made_at", "payload"], [Types.BOOLEAN(), Types.LONG(), Types.PICKLED_BYTE_ARRAY()])
DELTAS = Types.ROW([Types.LONG(), DELTA])


class LearnerFunction(KeyedCoProcessFunction):
    """In, all under one key: Row(shard, packed snapshots), and Row(key, payload, partition, offset, messages of its
    batch) of the catalogue, and of rules, decisions about items, and experiments, told apart by partitions that differ
    by `TOPIC_STEP`. Out:
    Row(shard, Row(whole, made_at, payload)) for each of the scorers' shards: the whole packed recommender first after
    every start, then a delta for each batch; beside it, at most `similar_items` that go with an item, each time that
    its interactions have grown by half, what is popular in the categories of what was taken, and what changes in the
    review queue and among the items that no list may hold. Malformed messages become dead letters, and so do those that
    the model fails on.

    Keyed state: `base`, the packed recommender, and `log`, what was learned from since, by number; and what was told of
    items, by their ids: `told_review`, which wait and why, and `told_forbidden`. Learning is
    deterministic, so both give the model, but for the sequence model's network: that is as it was packed. Without
    either it begins with the packed recommender in the file `start_from`, if one is given. The log is folded into the
    base after `compact_after_events` events, and when a user is erased, as it holds histories under users' names; where
    it has just been folded, later, as that takes as long as the model is large, and is to take a small part of the
    time. For who was erased a receipt is sent then.
    """

    recommender: type[Recommender] = Recommender

    def __init__(
        self,
        options: BlendOptions,
        shards: Sequence[int],
        events_topic: str,
        tables: Sequence[str],
        compact_after_events: int,
        similar_items: int,
        start_from: Path | None,
        target_freshness_ms: int,
        sequence_time_share: float,
    ) -> None:
        # Learning is on the CPU, one interaction after another; a GPU is for the scorers.
        self._options = replace(options, device="cpu")
        self._shards, self._events_topic, self._tables = shards, events_topic, tables
        self._compact_after_events, self._similar_items = compact_after_events, similar_items
        self._start_from = start_from and start_from.resolve()
        self._target_freshness_ms, self._sequence_time_share = target_freshness_ms, sequence_time_share

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics; the model itself is read with the first batch."""
        prepare_worker()
        self._runtime_context = runtime_context
        self._base = runtime_context.get_state(ValueStateDescriptor("base", Types.PICKLED_BYTE_ARRAY()))
        # A map, not a list: RocksDB keeps a list as one value, which it would rewrite again and again as it grows.
        log = MapStateDescriptor("log", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        self._log = runtime_context.get_map_state(log)
        self._told_review, self._told_forbidden = (
            runtime_context.get_map_state(MapStateDescriptor(name, Types.STRING(), Types.PICKLED_BYTE_ARRAY()))
            for name in ("told_review", "told_forbidden")
        )
        self._metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._learned = self._metrics.counter("interactions_learned")
        self._dead_letters = DeadLetters(self._metrics, "learner_failed")
        self._reviewed_at = 0.0
        # The messages of a micro-batch that has not come whole: of the catalogue, and of what the shop steers by.
        self._came: tuple[list[tuple[str | None, _Message]], ...] = [], []
        # Categories in which something was taken, and when what is popular in each may be said again.
        self._taken, self._popular_due = set[str](), dict[str, float]()
        self._milliseconds = self._metrics.distribution("learner_ms")
        self._model_version = self._metrics.distribution("model_version")
        self._sequence_updates = self._metrics.distribution("sequence_updates")
        self._sequence_failures = self._metrics.distribution("sequence_failures")
        self._steered = [self._metrics.distribution(name) for name in ("rules", "review_waiting", "items_forbidden")]
        for steered in self._steered:
            steered.update(0)
        self._budget = TrainingBudget(self._target_freshness_ms, self._sequence_time_share)
        self._recommender: Recommender | None = None
        # The events by which people were erased of whom the log still holds something, and when it may be folded, in
        # epoch milliseconds.
        self._erased, self._fold_due = list[str](), 0

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Learn from one micro-batch of snapshots."""
        _, requests = value
        yield from self._take(ctx, [bytes(request) for request in requests])

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Take a message of the catalogue, or of what the shop steers by, once all of its micro-batch have come. They
        come one after another and no checkpoint is between them, as what was an array before is taken apart in the
        last operator of its task."""
        key, payload, place, offset, size = value
        table, partition = divmod(place, TOPIC_STEP)
        came = self._came[table > 0]
        came.append((key, _Message(table, partition, offset, None if payload is None else bytes(payload))))
        if len(came) == size:
            batch, came[:] = list(came), []
            yield from self._follow(ctx, batch)

    def _follow(
        self, ctx: KeyedCoProcessFunction.Context, messages: list[tuple[str | None, _Message]]
    ) -> Iterator[object]:
        if self._recommender is None:
            yield from self._begun()
        assert self._recommender is not None
        changes: list[tuple[CatalogueChange, _Message]] = []
        steering: list[tuple[Steering, _Message]] = []
        # Those of the batch must not overlap each other either.
        experiments = copy(self._recommender.experiments)
        for key, message in messages:
            table, partition, offset, payload = message
            fault: MessageError | None = None
            try:
                if table == 0:
                    item_id, item = parse_item(key, payload)
                    change = CatalogueChange(item_id, False)
                    if item is not None:
                        change, fault = change_of(item, self._options.content)
                    changes.append((change, message))
                elif table == 1:
                    rule_id, rule = parse_rule(key, payload)
                    steering.append((Steering("rule", rule_id, payload if rule else None), message))
                elif table == 2:
                    item_id, decision = parse_decision(key, payload)
                    steering.append((Steering("decision", item_id, payload if decision else None), message))
                else:
                    experiment_id, experiment = parse_experiment(key, payload)
                    experiments.put(experiment_id, experiment)
                    steering.append((Steering("experiment", experiment_id, payload if experiment else None), message))
            except MessageError as error:
                fault = error
            if fault is not None:
                yield self._dead_letters.of(fault, self._tables[table], partition, offset, payload)
        yield from self._take(ctx, [], changes, steering)

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator[object]:
        """Fold the log, where people who were erased are waiting for that."""
        if self._recommender is None:
            yield from self._begun()
        if self._erased:
            self._fold()
            yield from self._receipts()

    def _begun(self) -> Iterator[object]:
        """Read the model, and send it whole."""
        self._recommender = self._restored()
        yield from self._sent(True, self._recommender.pack(learning=False))

    def _take(
        self,
        ctx: KeyedCoProcessFunction.Context,
        requests: list[bytes],
        changes: Sequence[tuple[CatalogueChange, _Message]] = (),
        steering: Sequence[tuple[Steering, _Message]] = (),
    ) -> Iterator[object]:
        started = time.perf_counter()
        if self._recommender is None:
            yield from self._begun()
        assert self._recommender is not None
        try:
            snapshots = [unpack_snapshot(request) for request in requests]
            if any(snapshot.session_only for snapshot in snapshots):
                # Not even the log may hold them.
                requests = [r for r, s in zip(requests, snapshots, strict=True) if not s.session_only]
                snapshots = [snapshot for snapshot in snapshots if not snapshot.session_only]
            if not (snapshots or changes or steering):
                return
            batch = _Logged(requests, [change for change, _ in changes], [steered for steered, _ in steering])
            delta = self._learned_from(snapshots, batch.changes, batch.steering)
        except Exception as error:
            # What failed has left the model half taught.
            self._recommender = self._restored()
            if self._options.sequence.network:
                # Its network is an older one than the scorers have.
                yield from self._sent(True, self._recommender.pack(learning=False))
            yield from self._one_by_one(ctx, requests, changes, steering, error)
            return
        self._erased += [snapshot.event_id for snapshot in snapshots if snapshot.erased]
        folded = self._remember(batch)
        self._milliseconds.update(round((time.perf_counter() - started) * 1000))
        self._model_version.update(self._recommender.version)
        self._sequence_updates.update(self._recommender.sequence.model.updates)
        self._sequence_failures.update(self._recommender.sequence.failures)
        yield from self._sent(False, pack_delta(delta))
        told: dict[str, bytes | None] = dict.fromkeys(self._recommender.forgotten)
        for similar in self._recommender.similar_items(delta, self._similar_items):
            told[similar.item_id] = self._encode(similar)
        if told:
            yield SIMILAR, Row(told)
        if folded:
            yield from self._receipts()
        elif self._erased:
            # Though nothing more may come. To Flink timers of one time are one.
            ctx.timer_service().register_processing_time_timer(self._fold_due)
        yield from self._popular(self._recommender.taken_categories(delta))
        # Now and then too, as rules have times of their own.
        if changes or steering or time.monotonic() > self._reviewed_at + _REVIEW_S:
            yield from self._reviewed()

    def _receipts(self) -> Iterator[object]:
        """For all who were erased: the log holds nothing any more."""
        for event_id in self._erased:
            yield RECEIPTS, Row(receipt(event_id, "model"))
        self._erased = []

    def _popular(self, taken: set[str]) -> Iterator[object]:
        """What is popular in categories in which something was taken, of each now and then."""
        assert self._recommender is not None
        now, self._taken = time.monotonic(), self._taken | taken
        k = self._options.category_popularity.items
        due = [category for category in self._taken if now >= self._popular_due.get(category, 0.0)]
        self._taken.difference_update(due)
        for category in due:
            self._popular_due[category] = now + _POPULAR_S
            items = list(map(SimilarItem, *self._recommender.popular_in(category, k)))
            said = CategoryItems(category, int(time.time() * 1000), items)
            yield CATEGORY_ITEMS, Row(category, encode_category_items(said))

    def _reviewed(self) -> Iterator[object]:
        """What has changed in the review queue, and among the items that no list may hold."""
        assert self._recommender is not None
        now, self._reviewed_at = int(time.time() * 1000), time.monotonic()
        for item, waits in self._recommender.rules.review(now).items():
            if waits is None:
                self._told_review.remove(item)
            else:
                self._told_review.put(item, msgspec.msgpack.encode(waits[1]))
            yield REVIEW_QUEUE, Row(item, None if waits is None else encode_review(Review(item, *waits, now)))
        for item, forbidden in self._recommender.rules.newly_forbidden(now).items():
            if forbidden:
                self._told_forbidden.put(item, b"")
            else:
                self._told_forbidden.remove(item)
            yield FORBIDDEN_ITEMS, Row(item, encode_forbidden_item(ForbiddenItem(item, now)) if forbidden else None)
        rules = self._recommender.rules
        counts = len(rules.rules), len(rules.waiting), int(rules.nowhere.sum())
        for steered, count in zip(self._steered, counts, strict=True):
            steered.update(count)

    def _learned_from(
        self, snapshots: list[Snapshot], changes: list[CatalogueChange], steering: Sequence[Steering]
    ) -> Delta:
        """What one batch has taught, the sequence model where there is time for it."""
        assert self._recommender is not None
        before, started = self._recommender.sequence.model.updates, time.perf_counter()
        newest = max((snapshot.appended_at for snapshot in snapshots), default=0)
        train = self._budget.allows(newest, int(time.time() * 1000))
        delta = self._recommender.learn(snapshots, changes, train, steering)
        if self._recommender.sequence.model.updates != before:
            self._budget.spent(time.perf_counter() - started)
        return delta

    def _encode(self, similar: Similar) -> bytes:
        items = list(map(SimilarItem, similar.item_ids, similar.scores))
        assert self._recommender is not None
        version = self._recommender.version
        return encode_similar_items(SimilarItems(similar.item_id, int(time.time() * 1000), version, items))

    def _one_by_one(
        self,
        ctx: KeyedCoProcessFunction.Context,
        requests: list[bytes],
        changes: Sequence[tuple[CatalogueChange, _Message]],
        steering: Sequence[tuple[Steering, _Message]],
        error: Exception,
    ) -> Iterator[object]:
        """Learn from all of a batch but the messages that the model fails on. Raises what it failed with where that is
        all of many: then the fault is in no single one, and the job starts again."""
        if len(requests) + len(changes) + len(steering) == 1:
            if requests:
                snapshot = unpack_snapshot(*requests)
                yield self._dead_letters.of_failure("learner_failed", error, self._events_topic, snapshot)
                return
            for _, (table, partition, offset, payload) in (*changes, *steering):
                topic = self._tables[table]
                yield self._dead_letters.of_message("learner_failed", error, topic, partition, offset, payload)
            return
        assert self._recommender is not None
        before = self._recommender.version
        for change in changes:
            yield from self._take(ctx, [], [change])
        for steered in steering:
            yield from self._take(ctx, [], [], [steered])
        for request in requests:
            yield from self._take(ctx, [request])
        if self._recommender.version == before and len(requests) + len(changes) + len(steering) >= _MANY:
            raise error

    def _sent(self, whole: bool, payload: bytes) -> Iterator[Row]:
        made_at = int(time.time() * 1000)
        return (Row(shard, Row(whole, made_at, payload)) for shard in self._shards)

    def _restored(self) -> Recommender:
        self._logged = self._batches = 0
        self._erased = []
        packed = self._base.value()
        model = self.recommender
        if packed is None:
            packed = self._taken_over()
        if packed is None:
            # At once, as it holds the seed of the noise of differential privacy.
            packed = self._start_from.read_bytes() if self._start_from else model(self._options).pack()
            self._base.update(packed)
        recommender = model.unpack(packed, self._options)
        for _, entry in sorted(self._log.items()):
            self._batches += 1
            logged = msgspec.msgpack.decode(entry, type=_Logged)
            snapshots = [unpack_snapshot(request) for request in logged.requests]
            self._erased += [snapshot.event_id for snapshot in snapshots if snapshot.erased]
            # The network goes on from where it was packed: to train it again would take too long.
            recommender.learn(snapshots, logged.changes, False, logged.steering)
            self._logged += len(logged.requests) + len(logged.changes) + len(logged.steering)
        waiting = {item: msgspec.msgpack.decode(rules) for item, rules in self._told_review.items()}
        recommender.rules.told(waiting, [item for item, _ in self._told_forbidden.items()])
        return recommender

    def _taken_over(self) -> bytes | None:
        """The base that a job left behind whose learner ran in a Python process of its own: now it is this one's, and
        so is all else that it kept."""
        base = former_value(self._runtime_context, "base")
        if base is not None:
            self._base.update(base)
            for number, entry in former_map(self._runtime_context, "log"):
                self._log.put(number_of(number), entry)
            for name, told in (("told_review", self._told_review), ("told_forbidden", self._told_forbidden)):
                for item, said in former_map(self._runtime_context, name):
                    told.put(text_of(item), said)
        return base

    def _remember(self, batch: _Logged) -> bool:
        """Put the batch into the log, or fold that; whether it was folded."""
        self._learned.inc(len(batch.requests))
        self._logged += len(batch.requests) + len(batch.changes) + len(batch.steering)
        due = self._logged >= self._compact_after_events or bool(self._erased)
        if due and time.time() * 1000 >= self._fold_due:
            self._fold()
            return True
        self._log.put(self._batches, msgspec.msgpack.encode(batch))
        self._batches += 1
        return False

    def _fold(self) -> None:
        assert self._recommender is not None
        started = time.time()
        self._base.update(self._recommender.pack())
        self._log.clear()
        self._logged = self._batches = 0
        now = time.time()
        self._fold_due = int(1000 * (now + _FOLD_PAUSE * (now - started)))
