"""Lists over HTTP: how long a request takes at a fixed rate, with the load tool on the same cores."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.http_load import Load
from deploy.local.stack import HOST, Stack
from deploy.local.topics import create_topics, default_topics
from schema.recommendation import DEFAULT_USER, Recommendation, ScoredItem, encode_recommendation

_RATE, _SECONDS, _CONNECTIONS, _ITEMS, _SETTLE_S = 2_000, 20, 32, 20_000, 10
_REPOSITORY = Path(__file__).resolve().parents[1]


def run(data: Path, users: int = 100_000) -> dict[str, Any]:
    """Puts a list of twenty items for each of so many users on the topic, lets the serving process read them, and asks
    for lists of random users at 2,000 requests a second for 20 s. Figures: latency in milliseconds from the moment at
    which a request was due, requests answered a second, failures, and how fast the topic was read."""
    stack = Stack(data / "bench", data / "jars")
    try:
        stack.up(taskmanagers=0, kafka_port=0, flink_port=0, metrics_port=0)
        topics = {name: msgspec.structs.replace(topic, partitions=1) for name, topic in default_topics().items()}
        create_topics(stack.bootstrap_servers, topics)
        _send(stack.bootstrap_servers, users)
        started = time.monotonic()
        url = stack.serve()
        reading = time.monotonic() - started
        # RocksDB still puts in order what was just read, which is no part of serving.
        time.sleep(_SETTLE_S)
        command = [sys.executable, "-m", "bench.http_load", HOST, url.rsplit(":", 1)[1]]
        command += map(str, (_RATE, _SECONDS, users, _CONNECTIONS))
        done = subprocess.run(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, check=True)
    finally:
        stack.down()
    load = msgspec.json.decode(done.stdout, type=Load)
    times = sorted(load.seconds)
    return {
        "users": users,
        "requests_per_second": len(times) / load.elapsed,
        "p50_ms": 1000 * times[len(times) // 2],
        "p99_ms": 1000 * times[len(times) * 99 // 100],
        "max_ms": 1000 * times[-1],
        "failed": load.failed,
        "lists_read_per_second": users / reading,
    }


def _send(bootstrap_servers: str, users: int) -> None:
    from kafka import KafkaProducer

    chosen = random.Random(1)
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=20, batch_size=262_144)
    for user in [DEFAULT_USER, *(f"u{number}" for number in range(users))]:
        items = [ScoredItem(f"item-{chosen.randrange(_ITEMS)}", 0.5, "cooccurrence") for _ in range(20)]
        made = Recommendation(user, f"{user}-1", 1_700_000_000_000, "e", 1_700_000_000_000, 1, "personal", items, 1)
        producer.send("recommendations", encode_recommendation(made), key=user.encode())
    producer.flush()
    producer.close()
