"""The main job as it was while its learner ran in a Python process beside the JVM: its savepoints are to be read."""

from typing import Any

from pyflink.datastream import StreamExecutionEnvironment

from jobs.entry import run
from jobs.flink import process_mode
from jobs.recommend import build
from jobs.settings import Settings
from operators.learner import LearnerFunction
from operators.scorer import ScorerFunction


class OlderLearner(LearnerFunction):
    """Knows of no time before its own."""

    def _taken_over(self) -> bytes | None:
        return None


def build_older(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """The mode is read when an operator is built, which is right after its function is made."""
    mode = process_mode(environment)

    def learner(*arguments: Any) -> LearnerFunction:
        mode.__enter__()
        return OlderLearner(*arguments)

    def scorer(*arguments: Any) -> ScorerFunction:
        mode.__exit__(None, None, None)
        return ScorerFunction(*arguments)

    build(environment, settings, learner, scorer)


if __name__ == "__main__":
    run("headrace", __doc__, build_older)
