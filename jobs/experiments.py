"""What experiments show, live: `flink run -py jobs/experiments.py --config FILE`."""

from pyflink.common import Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from jobs.entry import MILLISECONDS, USER_ID, connection, run, sink
from jobs.flink import keyed_in_jvm, name_table_operators, side_output
from jobs.recommend import BYTES
from jobs.settings import Settings
from operators.door import PseudonymFunction
from operators.experiment_results import EXPOSURES, MESSAGE, STOPS, ExperimentResultsFunction
from operators.outcomes import CHANGE, CHANGES, OutcomesFunction

TABLE_UIDS: dict[str, tuple[str, str | None]] = {
    **{
        f"KafkaSource-default_catalog.default_database.{table}": (table, None)
        for table in ("lists", "events", "experiments")
    },
    "results[": ("results-sink", None),
    "stops[": ("stops-sink", None),
    "exposures[": ("exposures-sink", None),
}
"""Names that the table planner gives, and the uids of those operators, as in `jobs.recommend`."""


def create_tables(tables: StreamTableEnvironment, settings: Settings) -> None:
    """The topics as tables."""
    kafka = settings.kafka
    source = f"{connection(kafka)}, 'properties.group.id'='{kafka.group_id}-experiments', 'value.format'='raw'"
    keyed = "'key.format'='raw', 'key.fields'='id', 'value.fields-include'='EXCEPT_KEY'"
    for table, topic in (("lists", kafka.recommendations), ("experiments", kafka.experiments)):
        tables.execute_sql(
            f"""create table {table} (id string, payload bytes) with ({source}, 'topic'='{topic}', {keyed},
            'scan.startup.mode'='earliest-offset')"""
        )
    tables.execute_sql(
        f"""create table events (payload bytes, appended timestamp_ltz(3) metadata from 'timestamp' virtual)
        with ({source}, 'topic'='{kafka.events}', 'scan.startup.mode'='{kafka.start}')"""
    )
    written = ("results", kafka.experiment_results), ("stops", kafka.experiments), ("exposures", kafka.exposures)
    for table, topic in written:
        tables.execute_sql(
            f"""create table {table} (id string, payload bytes)
            with ({sink(kafka, table)}, 'topic'='{topic}', 'value.format'='raw', {keyed})"""
        )


def build(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """From the topics of lists, events and experiments to their results."""
    tables = StreamTableEnvironment.create(environment)
    create_tables(tables, settings)
    heard = Types.ROW([Types.STRING(), Types.BOOLEAN(), BYTES, Types.LONG()])
    keyed = Types.ROW([Types.STRING(), heard])
    lists = tables.to_append_stream(
        tables.sql_query("select id, row('', true, payload, cast(0 as bigint)) from lists where id is not null"), keyed
    )
    appended = MILLISECONDS.format("appended")
    events = tables.to_append_stream(
        tables.sql_query(f"select {USER_ID}, row('', false, payload, {appended}) from events"), keyed
    )
    pseudonym_key = settings.privacy.key()
    if pseudonym_key is not None:
        # Lists name people as the main job does.
        events = events.map(PseudonymFunction(pseudonym_key), keyed).name("pseudonyms").uid("pseudonyms")
    changes = (
        keyed_in_jvm(lists.union(events), heard, Types.STRING())
        .process(OutcomesFunction(settings.events.parser(), settings.profiles.ttl_days), CHANGES)
        .name("outcomes")
        .uid("outcomes")
    )
    of_experiments = tables.to_append_stream(
        tables.sql_query("select id, row(id, payload) from experiments where id is not null"),
        Types.ROW([Types.STRING(), MESSAGE]),
    )
    found = (
        keyed_in_jvm(changes, CHANGE, Types.STRING())
        .connect(keyed_in_jvm(of_experiments, MESSAGE, Types.STRING()))
        .process(ExperimentResultsFunction(), MESSAGE)
        .name("experiment results")
        .uid("experiment-results")
    )
    inserts = tables.create_statement_set()
    inserts.add_insert("results", tables.from_data_stream(found))
    inserts.add_insert("stops", tables.from_data_stream(side_output(found, STOPS)))
    inserts.add_insert("exposures", tables.from_data_stream(side_output(found, EXPOSURES)))
    inserts.attach_as_datastream()
    name_table_operators(environment, TABLE_UIDS)


def main() -> None:
    """Validate the configuration, then submit."""
    run("headrace-experiments", __doc__, build)


if __name__ == "__main__":
    main()
