"""The main job as it was while its learner ran in a Python process beside the JVM, and while snapshots were gathered
after the profiles, in windows: its savepoints are to be read."""

from collections.abc import Iterator
from typing import Any

from pyflink.common import Row
from pyflink.datastream import KeyedProcessFunction, StreamExecutionEnvironment

from jobs.entry import run
from jobs.flink import process_mode
from jobs.recommend import build
from jobs.settings import Settings
from operators.learner import LearnerFunction
from operators.profile import FORMER_SNAPSHOTS, ProfileFunction
from operators.scorer import ScorerFunction


class OlderLearner(LearnerFunction):
    """Knows of no time before its own."""

    def _taken_over(self) -> bytes | None:
        return None


class OlderProfile(ProfileFunction):
    """Hands on each snapshot by itself."""

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[object]:
        for made in super().process_element(value, ctx):
            if isinstance(made, Row):
                _, (shard, requests) = made
                yield from ((FORMER_SNAPSHOTS, Row(shard, request)) for request in requests)
            else:
                yield made


def build_older(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """The mode is read when an operator is built, which is right after its function is made."""
    mode = process_mode(environment)

    def learner(*arguments: Any) -> LearnerFunction:
        mode.__enter__()
        return OlderLearner(*arguments)

    def scorer(*arguments: Any) -> ScorerFunction:
        mode.__exit__(None, None, None)
        return ScorerFunction(*arguments)

    build(environment, settings, learner, scorer, OlderProfile)


if __name__ == "__main__":
    run("headrace", __doc__, build_older)
