"""The pipe with nothing in it: Kafka, key in the JVM, one RocksDB read and one 400-byte write an event, Kafka."""

from collections.abc import Iterator

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.table import StreamTableEnvironment

from jobs.entry import flink_options
from jobs.flink import keyed_in_jvm, settings_of
from jobs.recommend import create_tables
from jobs.settings import load_settings

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())


class Floor(KeyedProcessFunction):
    """Reads the user's state, writes 400 bytes, passes the event on."""

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state."""
        self._state = runtime_context.get_state(ValueStateDescriptor("profile", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:  # noqa: ARG002
        """Pass one event on."""
        user, payload = value
        self._state.update((self._state.value() or bytes(400))[:400])
        yield Row(user, bytes(payload))


settings = load_settings()
environment = StreamExecutionEnvironment.get_execution_environment(settings_of(flink_options(settings)))
environment.set_parallelism(1)
tables = StreamTableEnvironment.create(environment)
# Kafka's own linger: events come one by one here, and without it they would leave so, at two thirds of the rate.
create_tables(tables, settings, linger_ms=5)
event = Types.ROW([Types.STRING(), BYTES])
events = tables.to_append_stream(
    tables.sql_query(
        """select user_id, row(user_id, payload) from
        (select coalesce(json_value(decode(payload, 'UTF-8'), '$.user_id'), '') as user_id, payload from events)"""
    ),
    Types.ROW([Types.STRING(), event]),
)
passed = keyed_in_jvm(events, event, Types.STRING()).process(
    Floor(), Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), BYTES])
)
inserts = tables.create_statement_set()
inserts.add_insert("recommendations", tables.from_data_stream(passed))
inserts.attach_as_datastream()
environment.execute("floor")
