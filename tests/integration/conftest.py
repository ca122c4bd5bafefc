"""A cluster that many tests use one after another, each with topics that are empty."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.local.stack import Stack, StackError
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
    # Before it too, should that have failed.
    _empty(shared_stack)
    yield shared_stack
    _empty(shared_stack)


def _empty(stack: Stack) -> None:
    stack.stop_serving()
    shutil.rmtree(stack.data / "serving", ignore_errors=True)
    stack.ensure()
    for job in stack.running_jobs():
        # It may end by itself just now.
        with contextlib.suppress(StackError):
            stack.cancel(job)
    admin, deadline = KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers), time.monotonic() + 20
    try:
        if left := _topics(admin):
            admin.delete_topics(left)
        # The broker tells of a topic for a moment after it is deleted, and who makes topics believes it.
        while left := _topics(admin):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    finally:
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
