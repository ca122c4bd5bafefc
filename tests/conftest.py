"""What all tests share: how hypothesis searches, and a real broker and Flink cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics

# A busy machine is slow to draw examples, which says nothing of the code; the same examples each time do.
settings.register_profile("headrace", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")
# As in the job's workers.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def jars(pytestconfig: pytest.Config) -> Path:
    """Where resolved jars outlive the session."""
    return Path(pytestconfig.cache.mkdir("jars")) if pytestconfig.cache else Path(".pytest_cache")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Stack]:
    """A running stack with two TaskManagers and the default topics, on free ports and its own data folder."""
    stack = Stack(tmp_path_factory.mktemp("stack"), jars)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        create_topics(stack.bootstrap_servers, default_topics(partitions=2))
        yield stack
    finally:
        stack.down()
