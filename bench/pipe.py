"""A job between topics of its own: what is sent into it, how far it is, and when what came of it."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cli.freshness import AppendedEvent, AppendedList, freshness
from deploy.local.stack import Stack, StackError
from deploy.local.topics import Topic, create_topics

ITEMS, USERS, SEED = 10_000, 20_000, 7
_DEAD_S, _STEP_S, _SLEEP_S = 900.0, 0.5, 0.001
_TOPICS = (
    "events",
    "items",
    "segments",
    "rules",
    "experiments",
    "forbidden_items",
    "review_queue",
    "review_decisions",
    "recommendations",
    "similar_items",
    "category_items",
    "taste_segments",
    "dead_letters",
    "erasures",
)
START = 1_600_000_000_000


def views(count: int, users: int, first: int = 0) -> tuple[list[int], list[int]]:
    """The user and the item of each of so many views, the same for the same `first`: users evenly, items by a Zipf law
    of exponent 1."""
    random = np.random.default_rng((SEED, first))
    popularity = 1 / np.arange(1, ITEMS + 1)
    items = random.choice(ITEMS, count, p=popularity / popularity.sum())
    return random.integers(0, users, count).tolist(), items.tolist()


class _Made(msgspec.Struct):
    event_id: str


class Pipe:
    """A job on a stack. Events are numbered from 0 on, in the order in which they are sent."""

    def __init__(self, stack: Stack, job: Path, partitions: int = 1) -> None:
        self._stack = stack
        self._topics = {kind: f"bench-{kind}-{job.stem}-{time.time_ns() // 1_000_000}" for kind in _TOPICS}
        timed = Topic(partitions, configs={"message.timestamp.type": "LogAppendTime"})
        create_topics(stack.bootstrap_servers, dict.fromkeys(self._topics.values(), timed))
        os.environ |= {f"HEADRACE_KAFKA__{kind.upper()}": topic for kind, topic in self._topics.items()}
        os.environ["HEADRACE_LISTS__SEND_UNCHANGED"] = "true"
        self._job, self._id = job, ""
        self.sent = 0

    def send_catalogue(self, items: int = ITEMS) -> None:
        """The items, before the job starts."""
        catalogue = (json.dumps({"item_id": f"i{n}", "title": f"Item {n}"}).encode() for n in range(items))
        self._produce("items", ((f"i{n}".encode(), value) for n, value in enumerate(catalogue)), 0)

    def send(self, count: int, users: int = USERS, first_user: int = 0, rate: float = 0) -> None:
        """So many views: `views`, whose users are numbered from `first_user` on. At `rate` events/s, or at once."""
        of_users, of_items = views(count, users, self.sent)
        self.send_of([first_user + user for user in of_users], of_items, rate)

    def send_of(self, users: Sequence[int], items: Sequence[int], rate: float = 0) -> None:
        """A view of each of the items by the user beside it."""
        views = (
            {
                "event_id": str(n),
                "user_id": f"u{user}",
                "event_type": "view",
                "timestamp": START + n,
                "item_id": f"i{item}",
            }
            for n, (user, item) in enumerate(zip(users, items, strict=True), self.sent)
        )
        self._produce("events", ((str(view["user_id"]).encode(), json.dumps(view).encode()) for view in views), rate)
        self.sent += len(users)

    def submit(self) -> str:
        """Start the job; returns its id."""
        self._id = self._stack.submit(self._job)
        return self._id

    def cancel(self) -> None:
        """End the job."""
        self._stack.cancel(self._id)

    def until_seen(self, event: int | None = None) -> None:
        """Wait until a list of an event is seen that is not before `event`, the last that was sent if not given.

        Raises StackError where that takes too long.
        """
        from kafka import KafkaConsumer, TopicPartition

        wanted, newest, deadline = self.sent - 1 if event is None else event, -1, time.monotonic() + _DEAD_S
        topic, decode = self._topics["recommendations"], msgspec.json.Decoder(_Made).decode
        consumer = KafkaConsumer(bootstrap_servers=self._stack.bootstrap_servers, group_id=None)
        partitions = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        try:
            ends: dict[TopicPartition, int] = {}
            while newest < wanted:
                if time.monotonic() > deadline:
                    raise StackError(f"{topic}: event {newest} seen, not {wanted}, after {_DEAD_S:.0f} s")
                time.sleep(0.5)
                before, ends = ends, consumer.end_offsets(partitions)
                # Of several partitions one may be far ahead of another, and the newest list need not be the last: so
                # when nothing comes any more, more of them are read.
                last = 100_000 if ends == before else 20 if len(partitions) == 1 else 2000
                for partition, end in ends.items():
                    consumer.seek(partition, max(0, end - last))
                while any(consumer.position(partition) < end for partition, end in ends.items()):
                    for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                        newest = max([newest, *(int(decode(r.value).event_id) for r in records if r.value)])
        finally:
            consumer.close()

    def lists(self) -> list[AppendedList]:
        """What came until now: the lists, without their items."""
        decode = msgspec.json.Decoder(_Made).decode
        came = ((r.key.decode(), decode(r.value), r.timestamp) for r in self._records("recommendations") if r.value)
        return [AppendedList(user, made.event_id, (), at) for user, made, at in came if user != "__default__"]

    def rate(self, lists: list[AppendedList], first: int, last: int) -> float:
        """Events/s of the events from `first` up to `last`, from the first list that carries the number of one of them
        until the last. Where people get one list of several events, those that no list names count as well."""
        times = [made.appended_ms for made in lists if first <= int(made.event_id or -1) < last]
        return (last - first) * 1000 / max(max(times) - min(times), 1)

    def freshness(self, lists: list[AppendedList], first: int, last: int) -> tuple[float, float]:
        """p50 and p99 of the milliseconds from append to append, of the events from `first` up to `last`."""
        events = ((json.loads(record.value)["event_id"], record.timestamp) for record in self._records("events"))
        return freshness([AppendedEvent(n, "", None, at) for n, at in events if first <= int(n) < last], lists)

    def _produce(self, kind: str, messages: Iterator[tuple[bytes, bytes]], rate: float) -> None:
        # librdkafka: kafka-python would take the better part of a core at the rates at which the job is looked at.
        from confluent_kafka import Producer

        faults: list[str] = []

        def failed(fault: object, _: object) -> None:
            faults.append(str(fault))

        producer = Producer(
            {
                "bootstrap.servers": self._stack.bootstrap_servers,
                "linger.ms": 5 if rate else 20,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "delivery.report.only.error": True,
                # As many as there are.
                "queue.buffering.max.messages": 0,
                # A new broker is asked again, and need not be told of.
                "log_level": 3,
            }
        )
        started = time.monotonic()
        for count, (key, value) in enumerate(messages):
            if rate and (early := started + count / rate - time.monotonic()) > _SLEEP_S:
                time.sleep(early)
            producer.produce(self._topics[kind], value, key, on_delivery=failed)
        producer.flush()
        if faults:
            raise StackError(f"{self._topics[kind]}: {len(faults)} events did not arrive, the first: {faults[0]}")

    def _records(self, kind: str) -> Iterator[Any]:
        """The whole topic, as it is now."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(
            bootstrap_servers=self._stack.bootstrap_servers, auto_offset_reset="earliest", group_id=None
        )
        topic = self._topics[kind]
        partitions = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        try:
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                    yield from records
        finally:
            consumer.close()


def taskmanager_of(stack: Stack, job: str, operator: str) -> int:
    """The process id of the TaskManager on which the operator's first subtask runs."""
    vertex = next(one for one in stack.rest(f"/jobs/{job}")["vertices"] if operator in one["name"])
    subtask, *_ = stack.rest(f"/jobs/{job}/vertices/{vertex['id']}")["subtasks"]
    place = subtask["taskmanager-id"]
    return next(process.pid for process in stack.state.processes.values() if process.resource_id == place)


def checkpointed_bytes(stack: Stack, job: str) -> int:
    """The state of the profiles in the next checkpoint that begins after now."""
    begun = time.time() * 1000
    while True:
        time.sleep(_STEP_S)
        newest = stack.rest(f"/jobs/{job}/checkpoints")["latest"]["completed"]
        if newest and newest["trigger_timestamp"] > begun:
            break
    tasks = {vertex["id"]: vertex["name"] for vertex in stack.rest(f"/jobs/{job}")["vertices"]}
    details = stack.rest(f"/jobs/{job}/checkpoints/details/{newest['id']}")["tasks"]
    return sum(task["state_size"] for vertex, task in details.items() if "profile" in tasks[vertex])
