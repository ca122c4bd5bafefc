"""The full job against the floor: the same pipe with nothing in it, in one run on one stack."""

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cli.freshness import AppendedEvent, AppendedList, freshness
from deploy.local.stack import Stack, StackError
from deploy.local.topics import Topic, create_topics

ITEMS, USERS, SEED = 10_000, 20_000, 7
_DEAD_S = 300.0
_TOPICS = ("events", "items", "recommendations", "similar_items", "dead_letters", "erasures")


def events(count: int, first: int) -> list[bytes]:
    """`count` views from number `first` on: users evenly, items by a Zipf law of exponent 1."""
    random = np.random.default_rng((SEED, first))
    popularity = 1 / np.arange(1, ITEMS + 1)
    items = random.choice(ITEMS, count, p=popularity / popularity.sum())
    users = random.integers(0, USERS, count)
    start = 1_600_000_000_000 + first
    return [
        json.dumps(
            {
                "event_id": str(first + n),
                "user_id": f"u{users[n]}",
                "event_type": "view",
                "timestamp": start + n,
                "item_id": f"i{items[n]}",
            }
        ).encode()
        for n in range(count)
    ]


def run(
    data: Path, preload: int = 60_000, live: int = 6_000, rate: float = 1000, rounds: int = 3
) -> dict[str, float | list[float]]:
    """Both jobs on fresh topics, by turns: events/s over a preloaded topic, then freshness in milliseconds at `rate`
    events/s. A shared machine changes its speed from minute to minute, so each figure is the median of the rounds, and
    `ratio` the median of the rounds' `ratios`.

    Raises StackError where a job ends or does not come to the end of its input.
    """
    stack = Stack(data / "bench", data / "jars")
    jobs = {"floor": Path(__file__).with_name("floor_job.py"), "full": Path("jobs/recommend.py")}
    measured: dict[str, list[float]] = defaultdict(list)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        for _ in range(rounds):
            for name, job in jobs.items():
                for key, value in _measure(stack, name, job, preload, live, rate).items():
                    measured[f"{name}_{key}"].append(value)
    finally:
        stack.down()
    pairs = zip(measured["full_events_per_second"], measured["floor_events_per_second"], strict=True)
    ratios = [full / floor for full, floor in pairs]
    figures = {key: median(values) for key, values in measured.items()}
    return {
        "items": ITEMS,
        "dimensions": 64,
        "k": 20,
        "rate": rate,
        **figures,
        "ratio": median(ratios),
        "ratios": ratios,
    }


def _measure(stack: Stack, name: str, job: Path, preload: int, live: int, rate: float) -> dict[str, float]:
    suffix = f"{name}-{int(time.time())}"
    topics = {kind: f"bench-{kind}-{suffix}" for kind in _TOPICS}
    timed = {"message.timestamp.type": "LogAppendTime"}
    create_topics(stack.bootstrap_servers, {topic: Topic(configs=timed) for topic in topics.values()})
    os.environ |= {f"HEADRACE_KAFKA__{kind.upper()}": topic for kind, topic in topics.items()}
    os.environ["HEADRACE_LISTS__SEND_UNCHANGED"] = "true"
    if name == "full":
        catalogue = [json.dumps({"item_id": f"i{n}", "title": f"Item {n}"}).encode() for n in range(ITEMS)]
        _produce(stack, topics["items"], catalogue, 0)
    _produce(stack, topics["events"], events(preload, 0), 0)
    submitted = stack.submit(job)
    _until_seen(stack, topics["recommendations"], preload)
    _produce(stack, topics["events"], events(live, preload), rate)
    _until_seen(stack, topics["recommendations"], preload + live)
    stack.cancel(submitted)

    appended = [(json.loads(r.value)["event_id"], r.timestamp) for r in _records(stack, topics["events"])]
    came = [(user, json.loads(value), at) for user, value, at in _lists(stack, topics["recommendations"])]
    # By the numbers of the events that lists carry: how far the job was at which time.
    start, end = preload // 4, preload * 19 // 20
    times = {int(value["event_id"]): at for _, value, at in came if start <= int(value["event_id"]) < end}
    first, last = min(times), max(times)
    live_events = [AppendedEvent(i, "", None, at) for i, at in appended if int(i) >= preload + live // 3]
    lists = [AppendedList(user, value["event_id"], (), at) for user, value, at in came]
    p50, p99 = freshness(live_events, lists)
    return {
        "events_per_second": (last - first) * 1000 / max(times[last] - times[first], 1),
        "freshness_ms_p50": p50,
        "freshness_ms_p99": p99,
    }


def _produce(stack: Stack, topic: str, values: list[bytes], rate: float) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers, linger_ms=5 if rate else 20)
    started = time.monotonic()
    for count, value in enumerate(values):
        producer.send(topic, value=value, key=json.loads(value)["item_id"].encode())
        if rate:
            time.sleep(max(0.0, started + count / rate - time.monotonic()))
    producer.flush()
    producer.close()


def _records(stack: Stack, topic: str) -> Any:
    """The whole topic, as it is now."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest", group_id=None)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    try:
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                yield from records
    finally:
        consumer.close()


def _lists(stack: Stack, topic: str) -> Any:
    for record in _records(stack, topic):
        if record.value is not None and record.key != b"__default__":
            yield record.key.decode(), record.value, record.timestamp


def _until_seen(stack: Stack, topic: str, events_sent: int) -> None:
    """Wait until the list that the last event caused is among the topic's newest."""
    from kafka import KafkaConsumer, TopicPartition

    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest", group_id=None)
    consumer.assign([partition])
    deadline, newest = time.monotonic() + _DEAD_S, -1
    try:
        while newest < events_sent - 1:
            if time.monotonic() > deadline:
                raise StackError(f"{topic}: {events_sent} events sent, event {newest} seen after {_DEAD_S:.0f} s")
            time.sleep(0.5)
            end = consumer.end_offsets([partition])[partition]
            consumer.seek(partition, max(0, end - 20))
            records = [r for batch in consumer.poll(timeout_ms=500).values() for r in batch]
            newest = max([newest, *(int(json.loads(r.value)["event_id"]) for r in records)])
    finally:
        consumer.close()
