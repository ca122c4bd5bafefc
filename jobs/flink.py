"""The few PyFlink calls that its public API lacks, or hides."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from pyflink.common import Configuration, Types
from pyflink.datastream import DataStream, OutputTag, StreamExecutionEnvironment
from pyflink.datastream.data_stream import KeyedStream
from pyflink.datastream.slot_sharing_group import SlotSharingGroup
from pyflink.java_gateway import get_gateway

_STATELESS = {
    "Calc",
    "Correlate",
    "DataStreamToTable",
    "Exchange",
    "Partition",
    "SideOutput",
    "SinkConversion",
    "Union",
    "WatermarkAssigner",
    "WindowTableFunction",
}


@contextmanager
def process_mode(environment: StreamExecutionEnvironment) -> Iterator[None]:
    """Operators built inside run in a Python process of their own instead of the JVM's thread.

    The mode is read when an operator is built and again when the job starts, so `thread` is set again at the end.
    """
    for_mode = {}
    for mode in ("process", "thread"):
        for_mode[mode] = Configuration()
        for_mode[mode].set_string("python.execution-mode", mode)
    environment.configure(for_mode["process"])
    yield
    environment.configure(for_mode["thread"])


def keyed_in_jvm(stream: DataStream, value_type: Any, key_type: Any) -> KeyedStream:
    """Key a stream of Row(key, value) by its first field without the Python hop that `key_by` adds; the operator
    after it sees the value alone."""
    selector = get_gateway().jvm.KeyByKeySelector()
    java = stream._j_data_stream.keyBy(selector, Types.ROW([key_type]).get_java_type_info())
    return KeyedStream(java, value_type, stream)


def side_output(stream: DataStream, tag: OutputTag) -> DataStream:
    """The stream's side output without the Python hop that `get_side_output` adds. In thread mode that hop would give
    the operator's thread a second interpreter state, with which the import of torch waits for itself for ever."""
    return DataStream(stream._j_data_stream.getSideOutput(tag.get_java_output_tag()))


def buffer_for(stream: DataStream, milliseconds: int, before: bool = False) -> None:
    """How long what leaves the stream's operator may wait in a buffer for more of it, or with `before` what leaves any
    of those before it as well. With 0 it goes at once, and no thread looks every few milliseconds whether there is any:
    for elements that are few."""
    operator = stream._j_data_stream.getTransformation()
    for one in operator.getTransitivePredecessors().toArray() if before else [operator]:
        one.setBufferTimeout(milliseconds)


def slot_with_gpus(name: str, gpus: int) -> str | SlotSharingGroup:
    """A slot sharing group: only its name where it needs no GPUs, so that any slot will do; otherwise also what its
    slots must have, which Flink finds where a TaskManager offers the external resource `gpu`."""
    if not gpus:
        return name
    group = SlotSharingGroup.builder(name).set_cpu_cores(1.0).set_task_heap_memory_mb(128).set_managed_memory_mb(256)
    return group.set_external_resource("gpu", float(gpus)).build()


def name_table_operators(environment: StreamExecutionEnvironment, uids: Mapping[str, tuple[str, str | None]]) -> None:
    """Give operators that the table planner made a uid, so that what is added to the job does not part them from their
    state; to be called once all is attached. By the beginning of the operator's name: its uid, and the id that Flink
    gave it before it had one, under which older savepoints hold its state. Raises ValueError where not exactly one is
    found, and where an operator that may hold state is left without a uid."""
    # Found from the ends of the job.
    ends = environment._j_stream_execution_environment.getTransformations()
    reached = (operator for n in range(ends.size()) for operator in ends.get(n).getTransitivePredecessors().toArray())
    unnamed = {operator.getId(): (operator.getName(), operator) for operator in reached if operator.getUid() is None}
    faults = []
    for name, (uid, before) in uids.items():
        found = [number for number, (own, _) in unnamed.items() if own.startswith(name)]
        if len(found) != 1:
            faults.append(f"the job has {len(found)} operators {name}")
            continue
        _, operator = unnamed.pop(found[0])
        operator.setUid(uid)
        if before is not None:
            operator.setUidHash(before)
    bare = sorted(own for own, _ in unnamed.values() if own.partition("[")[0] not in _STATELESS)
    if bare:
        faults.append(f"operators without a uid: {', '.join(bare)}")
    if faults:
        raise ValueError("; ".join(faults))


def key_per_subtask(parallelism: int, max_parallelism: int) -> list[int]:
    """For each subtask of an operator the smallest key that Flink sends there: keys 0, 1, 2 would leave some idle."""
    jvm = get_gateway().jvm
    assign = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignKeyToParallelOperator
    keys: dict[int, int] = {}
    for key in count():
        row = jvm.org.apache.flink.types.Row(1)
        row.setField(0, key)
        keys.setdefault(assign(row, max_parallelism, parallelism), key)
        if len(keys) == parallelism:
            return [keys[subtask] for subtask in range(parallelism)]
    raise AssertionError


def settings_of(options: dict[str, str]) -> Configuration:
    """A Flink configuration of these options."""
    configuration = Configuration()
    for key, value in options.items():
        configuration.set_string(key, value)
    return configuration
