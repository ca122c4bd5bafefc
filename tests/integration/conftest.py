"""A cluster that many tests use one after another, each with topics that are empty."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Stack]:
    """A running stack with three TaskManagers, as most jobs of a test take two slots and some one more."""
    stack = Stack(tmp_path_factory.mktemp("shared"), jars)
    try:
        stack.up(taskmanagers=3, kafka_port=0, flink_port=0, metrics_port=0)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def empty_stack(shared_stack: Stack) -> Iterator[Stack]:
    """The shared stack, without jobs and topics. What the test leaves there is removed."""
    yield shared_stack
    shared_stack.stop_serving()
    shutil.rmtree(shared_stack.data / "serving", ignore_errors=True)
    shared_stack.ensure()
    for job in shared_stack.running_jobs():
        shared_stack.cancel(job)
    admin = KafkaAdminClient(bootstrap_servers=shared_stack.bootstrap_servers)
    deadline = time.monotonic() + 20
    admin.delete_topics(left := _topics(admin))
    # The broker tells of a topic for a moment after it is deleted, and who makes topics believes it.
    while left:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
        left = _topics(admin)
    admin.close()


def _topics(admin: KafkaAdminClient) -> list[str]:
    return [topic for topic in admin.list_topics() if not topic.startswith("__")]


@pytest.fixture
def job_stack(empty_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The shared stack with the default topics, and the main job's settings in the environment."""
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "1000")
    # The learner folds its log into its base some times during the test.
    monkeypatch.setenv("HEADRACE_MODELS__COMPACT_AFTER_EVENTS", "30")
    create_topics(empty_stack.bootstrap_servers, default_topics())
    return empty_stack
