"""Writes the model that a savepoint of the main job holds to a file: `--savepoint`'s learner, started on no input."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from pyflink.common import Row, Types
from pyflink.datastream import StreamExecutionEnvironment

from jobs.entry import flink_options
from jobs.flink import keyed_in_jvm, settings_of
from jobs.recommend import BATCH, MESSAGE
from jobs.settings import load_settings
from operators.learner import DELTAS, LearnerFunction


class ExportingLearner(LearnerFunction):
    """Writes each whole model that it would send to the scorers."""

    def __init__(self, file: str, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._file = file

    def _sent(self, whole: bool, payload: bytes) -> Iterator[Row]:
        if whole:
            Path(self._file).write_bytes(payload)
        return super()._sent(whole, payload)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", help="where the packed model is written, on the TaskManager's machine")
    settings = load_settings()
    environment = StreamExecutionEnvironment.get_execution_environment(settings_of(flink_options(settings)))
    environment.set_parallelism(1)
    batches = environment.from_collection([Row(0, Row(0, []))], Types.ROW([Types.LONG(), BATCH]))
    # The last of two, of which the other does not come.
    message = Row(0, Row("", None, 0, 0, 2))
    catalogue = environment.from_collection([message], Types.ROW([Types.LONG(), MESSAGE]))
    options = settings.blend_options()
    learner = ExportingLearner(arguments.parse_args().file, options, [0], "events", "items", 2**31, 20, None, 0, 1.0)
    deltas = (
        keyed_in_jvm(batches, BATCH, Types.LONG())
        .connect(keyed_in_jvm(catalogue, MESSAGE, Types.LONG()))
        .process(learner, DELTAS)
        .name("learner")
        .uid("learner")
    )
    deltas.print()
    environment.execute("export-model")
