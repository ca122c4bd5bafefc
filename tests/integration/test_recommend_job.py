"""The main job on a real broker and cluster: lists, dead letters, erasure, and nothing lost or doubled under faults."""

import contextlib
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import Stack, still_running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
JOB = Path("jobs/recommend.py")
START = 1_600_000_000_000
TTL_S = 15


class Topics:
    """Sends events and items, and keeps what arrived on the two output topics."""

    def __init__(self, bootstrap_servers: str, isolation_level: str = "read_uncommitted", suffix: str = "") -> None:
        from kafka import KafkaConsumer, KafkaProducer

        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
        self._consumer = KafkaConsumer(
            f"recommendations{suffix}",
            f"dead-letters{suffix}",
            bootstrap_servers=bootstrap_servers,
            auto_offset_reset="earliest",
            group_id=None,
            isolation_level=isolation_level,
        )
        self._suffix = suffix
        self.lists: list[tuple[str, dict[str, Any] | None]] = []
        self.dead: list[dict[str, Any]] = []

    def send(self, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
        for value in values:
            self._producer.send(topic + self._suffix, value=value, key=key)
        self._producer.flush()

    @staticmethod
    def event(number: int, user: str, item: str | None, event_type: str = "view") -> bytes:
        fields = {"event_id": f"e{number}", "user_id": user, "event_type": event_type, "timestamp": START + number}
        return json.dumps(fields | ({"item_id": item} if item else {})).encode()

    def wait(self, ready: Callable[[], bool], seconds: float = 180) -> None:
        """Read until `ready`; fails with what arrived where that does not come."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, f"{len(self.lists)} lists, {self.dead=}, last {self.lists[-3:]}"
            for records in self._consumer.poll(timeout_ms=200).values():
                for record in records:
                    value = json.loads(record.value) if record.value is not None else None
                    if record.topic.startswith("dead-letters"):
                        assert value is not None
                        self.dead.append(value)
                    else:
                        self.lists.append((record.key.decode(), value))

    def newest(self) -> dict[str, dict[str, Any] | None]:
        return dict(self.lists)

    def profile_versions(self) -> dict[str, int]:
        return {user: value["profile_version"] for user, value in self.newest().items() if value}

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()


def test_every_event_counts_once_through_faults_and_upgrades(job_stack: Stack) -> None:
    job = job_stack.submit(JOB)
    topics = Topics(job_stack.bootstrap_servers)
    users, number = [f"u{n}" for n in range(10)], 0
    expected: Counter[str] = Counter()

    def feed(rounds: int) -> None:
        nonlocal number
        for _ in range(rounds):
            for user in users:
                message = topics.event(number, user, f"i{(number * 7 + number // 50) % 30}")
                # Sent twice: the duplicate must not count.
                topics.send("events", message, message)
                expected[user] += 1
                number += 1

    def served() -> bool:
        versions = topics.profile_versions()
        return all(versions.get(user) == count for user, count in expected.items())

    feed(10)
    topics.wait(served)

    malformed = [b"{", b"[]", b"\xff\xfe", b"", b'{"event_id":"x","user_id":"u1"}', topics.event(1, "", "i1")]
    topics.send("events", *malformed)
    topics.wait(lambda: len(topics.dead) >= len(malformed))
    assert {(letter["topic"], letter["partition"]) for letter in topics.dead} == {("events", 0)}
    assert len({letter["offset"] for letter in topics.dead}) == len(malformed)
    malformed.append(b'{"price": "cheap"}')
    topics.send("items", malformed[-1], key=b"i4")
    topics.wait(lambda: len(topics.dead) >= len(malformed))
    assert (topics.dead[-1]["topic"], topics.dead[-1]["payload"]) == ("items", malformed[-1].decode())

    topics.send("items", json.dumps({"item_id": "i3", "title": "gone", "available": False}).encode(), key=b"i3")
    time.sleep(1)
    feed(1)
    topics.wait(served)
    for user in users:
        newest = topics.newest()[user]
        assert newest is not None
        assert "i3" not in [item["item_id"] for item in newest["items"]]

    feed(5)
    taskmanager = psutil.Process(job_stack.taskmanager_pids[0])
    taskmanager.kill()
    assert not still_running([taskmanager], 10)
    job_stack.ensure()
    feed(5)
    topics.wait(served)

    savepoint = job_stack.stop_with_savepoint(job)
    feed(2)
    job = job_stack.submit(JOB, savepoint=savepoint)
    topics.wait(served)

    # One more event, when all deltas have come: its list tells how much the model has learned from, in all.
    time.sleep(1)
    feed(1)
    topics.wait(served)
    newest = topics.newest()[users[-1]]
    assert newest is not None
    catalogue_changes = 1
    assert number - len(users) + catalogue_changes <= newest["model_version"] <= number + catalogue_changes
    assert len(topics.dead) == len(malformed)

    topics.send("events", topics.event(number, "u0", None, "erase_user"))
    topics.wait(lambda: topics.newest()["u0"] is None)
    topics.send("events", topics.event(number + 1, "u0", "i1"))
    topics.wait(lambda: topics.profile_versions().get("u0") == 1)

    topics.send("events", b"{")
    topics.wait(lambda: len(topics.dead) > len(malformed))
    time.sleep(1)
    metrics = operator_metrics(job_stack)
    # Counted since the last submission: two rounds, one round, the erasure and the event after it.
    assert metrics["events_accepted"] == 3 * len(users) + 2
    assert metrics["events_duplicate"] == 3 * len(users)
    assert metrics["code_dead_letters"] == 1
    assert metrics["interactions_learned"] >= 3 * len(users)
    assert metrics["lists_sent"] > 0
    assert metrics["model_version"] >= newest["model_version"]
    for name in ("events_late", "batch_size", "learner_ms", "scorer_ms", "freshness_ms", "replica_lag_ms"):
        assert metrics[name] >= 0
    assert 0 <= metrics["prequential_ndcg"] <= metrics["prequential_hit"] <= 1_000_000
    topics.close()
    job_stack.cancel(job)


def operator_metrics(stack: Stack, operator: str | None = None) -> dict[str, float]:
    """What Prometheus would scrape of our operators, or one of them, summed over the labels; gauges exist once."""
    prefix, sums = "flink_taskmanager_job_task_operator_headrace_", Counter[str]()
    for name, port in stack.metrics_ports.items():
        if name.startswith("taskmanager-"):
            for family in text_string_to_metric_families(scraped(port)):
                for sample in family.samples:
                    if sample.name.startswith(prefix) and operator in (None, sample.labels["operator_name"]):
                        key = sample.name.removeprefix(prefix)
                        sums[key] = max(sums[key], sample.value) if key == "model_version" else sums[key] + sample.value
    return dict(sums)


def scraped(port: int) -> str:
    """The metrics at the port. Under load Flink's reporter now and then hangs up without a word; as Prometheus does,
    ask again soon."""
    for _ in range(3):
        with contextlib.suppress(ConnectionError):
            page: bytes = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()
            return page.decode()
        time.sleep(1)
    raise AssertionError(f"no metrics at port {port}")


def test_exactly_once_lists_become_visible_with_checkpoints_and_who_stays_away_is_forgotten(
    job_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__DELIVERY", "exactly-once")
    monkeypatch.setenv("HEADRACE_PROFILES__TTL_DAYS", str(TTL_S / 86_400))
    job = job_stack.submit(JOB)
    topics = Topics(job_stack.bootstrap_servers, isolation_level="read_committed")
    topics.send("events", b"{", *(topics.event(number, f"u{number % 3}", f"i{number % 7}") for number in range(60)))
    topics.wait(lambda: all(topics.profile_versions().get(f"u{user}") == 20 for user in range(3)))
    topics.wait(lambda: len(topics.dead) == 1)

    time.sleep(TTL_S)
    topics.send("events", topics.event(60, "u0", "i1"))
    topics.wait(lambda: topics.profile_versions()["u0"] != 20)
    assert topics.profile_versions()["u0"] == 1
    topics.close()
    job_stack.cancel(job)
