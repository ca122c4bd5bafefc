"""A small job for the stack's own tests: counts events per user in a Python worker process."""

import os
from collections.abc import Iterator

from pyflink.common import Configuration, Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.table import StreamTableEnvironment

BROKER = os.environ["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"]


class Count(KeyedProcessFunction):
    """How many values a key had so far."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:  # noqa: ARG002
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield Row(value[0], f'{{"count": {count}}}')


settings = Configuration()
settings.set_string("execution.checkpointing.interval", "500ms")
settings.set_string("execution.buffer-timeout.interval", "5ms")
settings.set_string("python.fn-execution.bundle.time", "10")
environment = StreamExecutionEnvironment.get_execution_environment(settings)
tables = StreamTableEnvironment.create(environment)
for name, topic, options in (
    ("source", "counted", "'properties.group.id'='counting', 'scan.startup.mode'='earliest-offset'"),
    ("sink", "counts", "'sink.delivery-guarantee'='at-least-once'"),
):
    tables.execute_sql(
        f"""create table {name} (user_id string, payload string) with ('connector'='kafka', 'topic'='{topic}',
        'properties.bootstrap.servers'='{BROKER}', 'key.format'='raw', 'key.fields'='user_id', 'value.format'='raw',
        'value.fields-include'='EXCEPT_KEY', {options})"""
    )
row = Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), Types.STRING()])
counts = tables.to_data_stream(tables.from_path("source")).key_by(lambda r: r[0], Types.STRING()).process(Count(), row)
insert = tables.create_statement_set()
insert.add_insert("sink", tables.from_data_stream(counts))
insert.attach_as_datastream()
environment.execute("counting")
