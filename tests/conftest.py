"""What all tests share: how hypothesis searches, and a real broker and Flink cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.stacks import empty

# A busy machine is slow to draw examples, which says nothing of the code; the same examples each time do.
settings.register_profile("headrace", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")
# As in the job's workers.
torch.set_num_threads(1)


_LONGEST = ("test_upgrade", "test_chaos", "test_local_stack")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that of two workers none waits long for the other at the end."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


class _ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        """One worker has all tests that look at the whole system, as that takes a minute to start."""
        browser = "tests/browser/"
        return browser if nodeid.startswith(browser) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Where tests are given out by file, as above."""
    return _ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def jars(pytestconfig: pytest.Config) -> Path:
    """Where resolved jars outlive the session."""
    return Path(pytestconfig.cache.mkdir("jars")) if pytestconfig.cache else Path(".pytest_cache")


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Stack]:
    """The one running stack that nearly all tests use, on free ports, with four TaskManagers: most jobs of a test take
    three slots and some one more."""
    stack = Stack(tmp_path_factory.mktemp("shared"), jars)
    try:
        stack.up(taskmanagers=4, kafka_port=0, flink_port=0, metrics_port=0)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """It with the default topics, for the tests of one file, which tell their messages apart by themselves."""
    empty(shared_stack)
    create_topics(shared_stack.bootstrap_servers, default_topics(partitions=2))
    yield shared_stack
    empty(shared_stack)


@pytest.fixture
def empty_stack(shared_stack: Stack) -> Iterator[Stack]:
    """It without jobs and topics. What the test leaves there is removed."""
    # Before it too, should that have failed.
    empty(shared_stack)
    yield shared_stack
    empty(shared_stack)
