"""Stopped with a savepoint and started as another job, twice: its lists equal those of a job that nobody stopped."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.integration.test_recommend_job import Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(500)]
JOB = Path("jobs/recommend.py")
USERS = [f"u{n}" for n in range(6)]
ROUNDS = 4


@pytest.fixture
def wide_stack(empty_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The shared stack with the slots that three steps of parallelism take."""
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    # What the order of a list learns from what people take depends on which replica made the list before; the fixed
    # blend depends on the model alone.
    monkeypatch.setenv("HEADRACE_LISTS__HORIZON", "any")
    # So that the models take steps during the test.
    monkeypatch.setenv("HEADRACE_MODELS__STEP", "16")
    empty_stack.up(taskmanagers=7)
    return empty_stack


class Feed:
    """Sends one event after another, each when the list for the one before has come: their order is given."""

    def __init__(self, topics: Topics) -> None:
        self._topics, self._number = topics, 0

    def rounds(self, count: int) -> None:
        """Each user views something, `count` times."""
        for _ in range(count):
            for user in USERS:
                item = f"i{(self._number * 7 + self._number // 5) % 40}"
                self._send(user, self._topics.event(self._number, user, item))

    def last_lists(self) -> dict[str, Any]:
        """Every user's list after an event that teaches nothing, once the deltas of those before have come."""
        time.sleep(2)
        for user in USERS:
            event = json.loads(self._topics.event(self._number, user, None, "search"))
            self._send(user, json.dumps(event).encode())
        newest = {user: self._topics.newest()[user] for user in USERS}
        return {user: [(i["item_id"], i["score"]) for i in made["items"]] for user, made in newest.items() if made}

    def _send(self, user: str, event: bytes) -> None:
        self._topics.send("events", event, key=user.encode())
        event_id = f"e{self._number}"
        self._number += 1
        self._topics.wait(lambda: (self._topics.newest().get(user) or {}).get("event_id") == event_id)


def test_lists_after_two_upgrades_equal_those_of_a_job_that_ran_through(
    wide_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = wide_stack
    create_topics(stack.bootstrap_servers, default_topics(partitions=2))
    topics = Topics(stack.bootstrap_servers)
    feed = Feed(topics)
    job = stack.submit(JOB)
    feed.rounds(ROUNDS)

    # Three times as wide, with one model more.
    savepoint = stack.stop_with_savepoint(job)
    monkeypatch.setenv("HEADRACE_FLINK__PARALLELISM", "3")
    monkeypatch.setenv("HEADRACE_MODELS__USER_NEIGHBOURS", "4")
    job = stack.submit(JOB, savepoint=savepoint)
    feed.rounds(ROUNDS)

    # Narrower, and without it again.
    savepoint = stack.stop_with_savepoint(job)
    monkeypatch.setenv("HEADRACE_FLINK__PARALLELISM", "2")
    monkeypatch.setenv("HEADRACE_MODELS__USER_NEIGHBOURS", "0")
    job = stack.submit(JOB, savepoint=savepoint)
    feed.rounds(ROUNDS)
    upgraded = feed.last_lists()
    versions = topics.profile_versions()
    topics.close()
    stack.cancel(job)

    monkeypatch.setenv("HEADRACE_FLINK__PARALLELISM", "1")
    for name in ("events", "items", "recommendations", "dead-letters", "erasures", "similar-items"):
        monkeypatch.setenv(f"HEADRACE_KAFKA__{name.replace('-', '_').upper()}", f"{name}-through")
    create_topics(
        stack.bootstrap_servers, {f"{name}-through": topic for name, topic in default_topics(partitions=2).items()}
    )
    through = Topics(stack.bootstrap_servers, suffix="-through")
    feed = Feed(through)
    job = stack.submit(JOB)
    feed.rounds(3 * ROUNDS)
    uninterrupted = feed.last_lists()
    assert versions == through.profile_versions()
    through.close()
    stack.cancel(job)

    assert all(len(made) == 20 for made in upgraded.values())
    for user in USERS:
        assert [item for item, _ in upgraded[user]] == [item for item, _ in uninterrupted[user]]
        assert [score for _, score in upgraded[user]] == pytest.approx([s for _, s in uninterrupted[user]], abs=1e-4)


def test_what_an_older_job_had_gathered_is_served_by_the_next(
    job_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_FLINK__WINDOW_MS", "10000")
    older = job_stack.submit(Path("tests/integration/older_job.py"))
    topics = Topics(job_stack.bootstrap_servers)

    def tasks() -> list[dict[str, Any]]:
        return list(job_stack.rest(f"/jobs/{older}")["vertices"])

    def taken() -> int:
        return int(next(task["metrics"]["read-records"] for task in tasks() if "profile" in task["name"]))

    topics.wait(lambda: all(task["status"] == "RUNNING" for task in tasks()))
    # Windows begin at whole multiples of their length.
    while time.time() % 10 > 2:
        time.sleep(0.1)
    topics.send("events", *(topics.event(n, user, f"i{n}") for n, user in enumerate(USERS)))
    topics.wait(lambda: taken() >= len(USERS))
    savepoint = job_stack.stop_with_savepoint(older)
    assert topics.newest() == {}

    monkeypatch.setenv("HEADRACE_FLINK__WINDOW_MS", "25")
    job = job_stack.submit(JOB, savepoint=savepoint)
    topics.wait(lambda: set(USERS) <= topics.newest().keys())
    topics.close()
    job_stack.cancel(job)
