"""The pulse of the running system, measured at the topics: rates, freshness, prequential hit rate, the model's age."""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from config.kafka import Kafka
from schema.errors import MessageError
from schema.event import EventParser
from schema.recommendation import DEFAULT_USER, decode_recommendation, is_default
from serving.broker import reachable
from serving.metrics import Metrics, follow
from serving.view import View

K = 20
_WAITING, _RECENT, _JUDGED, _RATE_S, _ASK_S, _STOP_S = 20_000, 2_000, 1_000, 5.0, 5.0, 5.0
_log = logging.getLogger(__name__)
_POSITIVE = frozenset(("view", "add_to_cart", "favorite", "purchase", "rating"))


class Beat(msgspec.Struct):
    """The figures of one moment. `freshness_ms` is from the append of an event to that of the list that it caused, over
    the newest lists; `hit` the share of the newest events whose item stood among the first 20 of the list that the
    person had before; `model_age_ms` is since the model's version last rose. None where nothing is known yet."""

    at: int
    events_per_second: float
    lists_per_second: float
    freshness_ms_p50: float | None
    freshness_ms_p99: float | None
    hit: float | None
    judged: int
    model_version: int | None
    model_age_ms: int | None


class _Cause(msgspec.Struct):
    event_id: str | None = None
    model_version: int = 0


_cause = msgspec.json.Decoder(_Cause)


class Pulse(threading.Thread):
    """Reads the topic `events` from its end, and hears of lists from whoever reads those. `named` gives the key of a
    user's list."""

    def __init__(
        self, view: View, kafka: Kafka, parser: EventParser, named: Callable[[str], str], metrics: Metrics
    ) -> None:
        super().__init__(name="pulse", daemon=True)
        self._view, self._kafka, self._parser, self._named = view, kafka, parser, named
        self._lock, self._over = threading.Lock(), threading.Event()
        # Ids of events that came lately, to tell those that come again.
        self._known: OrderedDict[str, None] = OrderedDict()
        # What has come of an event or its list, until the other comes.
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._lags: deque[int] = deque(maxlen=_RECENT)
        self._hits: deque[bool] = deque(maxlen=_JUDGED)
        self._event_times: deque[float] = deque(maxlen=100_000)
        self._list_times: deque[float] = deque(maxlen=100_000)
        self._model_version: int | None = None
        self._model_rose_at = 0.0
        self._freshness = metrics.freshness
        follow(metrics.hit, lambda: self.beat().hit)

    def run(self) -> None:
        """Read until stopped."""
        while not self._over.is_set():
            try:
                if reachable(self._kafka):
                    self._read()
            except KafkaError as error:
                _log.warning("The pulse waits for the broker: %r", error)
            self._over.wait(1)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join(_STOP_S)

    def lists(self, records: list[Any]) -> None:
        """Hear of records of the topic `recommendations`."""
        now = time.monotonic()
        for record in records:
            if record.value is None or is_default(record.key.decode(errors="replace")):
                continue
            try:
                cause = _cause.decode(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            with self._lock:
                self._list_times.append(now)
                if self._model_version != cause.model_version:
                    self._model_version, self._model_rose_at = cause.model_version, now
            if cause.event_id is not None:
                self._meet(cause.event_id, record.timestamp, 1)

    def beat(self) -> Beat:
        """The figures now."""
        now = time.monotonic()
        with self._lock:
            lags, hits = sorted(self._lags), list(self._hits)
            events, lists = (_rate(times, now) for times in (self._event_times, self._list_times))
            version, rose_at = self._model_version, self._model_rose_at
        return Beat(
            at=int(time.time() * 1000),
            events_per_second=events,
            lists_per_second=lists,
            freshness_ms_p50=lags[len(lags) // 2] if lags else None,
            freshness_ms_p99=lags[len(lags) * 99 // 100] if lags else None,
            hit=sum(hits) / len(hits) if hits else None,
            judged=len(hits),
            model_version=version,
            model_age_ms=None if version is None else int((now - rose_at) * 1000),
        )

    def _read(self) -> None:
        consumer = KafkaConsumer(**self._kafka.python_client(), group_id=None, enable_auto_commit=False)
        try:
            topic = self._kafka.events
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            if not partitions:
                return
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek_to_end(partition)
            asked = time.monotonic()
            while not self._over.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        self._event(record)
                if time.monotonic() > asked + _ASK_S:
                    # Fails where the broker is gone, of which a poll says nothing.
                    consumer.end_offsets(partitions, timeout_ms=3000)
                    asked = time.monotonic()
                    if len(consumer.partitions_for_topic(topic) or ()) != len(partitions):
                        return
        finally:
            consumer.close()

    def _event(self, record: Any) -> None:
        try:
            event = self._parser.parse(record.value, int(time.time() * 1000))
        except MessageError:
            return
        with self._lock:
            self._event_times.append(time.monotonic())
        if event.event_id in self._known:
            return
        self._known[event.event_id] = None
        if len(self._known) > _WAITING:
            self._known.popitem(last=False)
        self._meet(event.event_id, record.timestamp, -1)
        if event.consent and event.item_id is not None and event.event_type in _POSITIVE:
            self._judge(self._named(event.user_id), event.item_id, record.timestamp)

    def _judge(self, user: str, item_id: str, appended_at: int) -> None:
        raw = self._view.recommendations(user) or self._view.recommendations(DEFAULT_USER)
        if raw is None:
            return
        held = decode_recommendation(raw)
        # A list that was made after the event may hold its item because of it.
        if held.generated_at < appended_at:
            with self._lock:
                self._hits.append(any(item.item_id == item_id for item in held.items[:K]))

    def _meet(self, event_id: str, at: int, sign: int) -> None:
        """Take the time of an event (-1) or of its list (1): the second of the two gives the freshness."""
        with self._lock:
            other = self._waiting.pop(event_id, None)
            if other is None:
                self._waiting[event_id] = sign * at
                if len(self._waiting) > _WAITING:
                    self._waiting.popitem(last=False)
                return
            # Both of one kind: an event or a list that came twice.
            if (other > 0) == (sign > 0):
                self._waiting[event_id] = other
                return
            lag = other + sign * at
            self._lags.append(max(0, lag))
        self._freshness.observe(max(0, lag) / 1000)


def _rate(times: deque[float], now: float) -> float:
    while times and times[0] < now - _RATE_S:
        times.popleft()
    return len(times) / _RATE_S
