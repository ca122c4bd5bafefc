"""Events of many users in one element: `MicroBatch.java`, and what the operator after it needs."""

from importlib.resources import files
from typing import Any

from pyflink.common import Types
from pyflink.datastream import RuntimeContext
from pyflink.datastream.data_stream import KeyedStream
from pyflink.java_gateway import get_gateway

_BYTES, _TEXT, _NUMBER = Types.PRIMITIVE_ARRAY(Types.BYTE()), Types.OBJECT_ARRAY(Types.STRING()), Types.LONG()
EVENTS = Types.ROW(
    [
        _TEXT,
        _TEXT,
        Types.OBJECT_ARRAY(_BYTES),
        Types.OBJECT_ARRAY(Types.INT()),
        Types.OBJECT_ARRAY(_NUMBER),
        Types.OBJECT_ARRAY(_NUMBER),
    ]
)
"""Users, kinds, payloads, partitions, offsets, and when they were appended, of one event after another."""
_MOST = 1024


def micro_batches(events: KeyedStream, wait_ms: int) -> KeyedStream:
    """Gather what comes to a subtask of a stream by user, of Row(user, Row(kind, payload, partition, offset,
    appended_at)): the operator after it gets `EVENTS`, of users whose state all lies there. The key that Flink sets is
    that of the first; for the others the operator sets it, by `CurrentUser`. A batch waits `wait_ms` after the one
    before it, and holds 1,024 events at most."""
    jvm, keyed = get_gateway().jvm, events._j_data_stream
    flink, environment = jvm.org.apache.flink, keyed.getExecutionEnvironment()
    options = get_gateway().new_array(jvm.Object, 2)
    options[0], options[1] = wait_ms, _MOST
    source = files("operators").joinpath("MicroBatch.java").read_text()
    compiled = flink.table.runtime.generated.GeneratedOperator(
        "MicroBatch", source, options, flink.configuration.Configuration()
    )
    operator = flink.streaming.api.transformations.OneInputTransformation(
        keyed.getTransformation(),
        "micro_batch",
        flink.table.runtime.operators.CodeGenOperatorFactory(compiled),
        Types.ROW([Types.STRING(), EVENTS]).get_java_type_info(),
        environment.getParallelism(),
    )
    operator.setUid("micro-batch")
    environment.addOperator(operator)
    # Keyed as it was, so nothing is sent on: both run in one thread.
    streams = flink.streaming.api.datastream
    batches = streams.DataStreamUtils.reinterpretAsKeyedStream(
        streams.DataStream(environment, operator), keyed.getKeySelector(), keyed.getKeyType()
    )
    return KeyedStream(batches, EVENTS, events)


class CurrentUser:
    """Whose the keyed state is, in an operator that takes events of many users at once."""

    def __init__(self, runtime_context: RuntimeContext) -> None:
        # It is there inside of a JVM alone.
        from pemja import findClass

        self._backend: Any = runtime_context.get_keyed_state_backend()._keyed_state_backend
        self._key = findClass("org.apache.flink.types.Row")(1)

    def set(self, user_id: str) -> None:
        """From now on states are those of this user, one of those whose events Flink sends here."""
        # RocksDB takes the bytes of the key at once, so one row serves all.
        self._key.setField(0, user_id)
        self._backend.setCurrentKey(self._key)


def subtask(runtime_context: RuntimeContext) -> int:
    """Which of its operator's subtasks this one is, from 0 on; PyFlink's own way has a name of Flink 1."""
    java: Any = runtime_context
    return int(java._runtime_context.getTaskInfo().getIndexOfThisSubtask())
