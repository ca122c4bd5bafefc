"""The shared stack as most tests of the main job want it."""

import pytest

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics


@pytest.fixture
def job_stack(empty_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The shared stack with the default topics, and the main job's settings in the environment."""
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "1000")
    # The learner folds its log into its base some times during the test.
    monkeypatch.setenv("HEADRACE_MODELS__COMPACT_AFTER_EVENTS", "30")
    create_topics(empty_stack.bootstrap_servers, default_topics())
    return empty_stack
