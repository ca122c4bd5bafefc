"""What people do, live: `flink run -py jobs/behaviour.py --config FILE`. Sessions, funnels and trends by Flink SQL,
what SQL cannot by a keyed operator."""

from pyflink.common import Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import Schema, StreamTableEnvironment

from config.events import Events
from jobs.entry import MILLISECONDS, connection, run, sink
from jobs.flink import keyed_in_jvm, name_table_operators, side_output
from jobs.recommend import BYTES
from jobs.settings import Settings
from model.behaviour import BehaviourOptions
from model.interest_drift import DriftOptions
from operators.actions import ACTIONS, ActionsFunction
from operators.behaviour import ABANDONED_CARTS, DRIFT, MESSAGE, BehaviourFunction

TABLE_UIDS: dict[str, tuple[str, str | None]] = {
    "KafkaSource-default_catalog.default_database.events": ("events", None),
    "KafkaSource-default_catalog.default_database.items": ("items", None),
    "Deduplicate[10]": ("deduplicate", None),
    "WindowAggregate[23]": ("sessions", None),
    "LocalWindowAggregate[29]": ("first-steps-local", None),
    "GlobalWindowAggregate[31]": ("first-steps", None),
    "LocalWindowAggregate[33]": ("funnels-local", None),
    "GlobalWindowAggregate[35]": ("funnels", None),
    "LocalWindowAggregate[43]": ("item-trends-local", None),
    "GlobalWindowAggregate[45]": ("item-trends", None),
    "WindowRank[48]": ("item-trends-rank", None),
    "LocalWindowAggregate[53]": ("category-trends-local", None),
    "GlobalWindowAggregate[55]": ("category-trends", None),
    "WindowRank[58]": ("category-trends-rank", None),
    **{
        f"{table}[": (f"{table}-sink", None)
        for table in ("sessions", "funnel_stats", "trends", "segments", "abandoned_carts", "drift")
    },
}
"""Names that the table planner gives, and the uids of those operators, as in `jobs.recommend`."""
_TYPED = {
    "sessions": ("user_id", ["started_at", "ended_at", "events", "views", "carts", "purchases", "items"]),
    "funnel_stats": (
        "category",
        ["day", "viewed", "strict_carted", "strict_purchased", "any_carted", "any_purchased"],
    ),
    "trends": ("id", ["window_start", "window_end", "actions", "people", "before"]),
}
"""Topics that SQL writes: the key, and fields that are whole numbers."""


def create_tables(tables: StreamTableEnvironment, settings: Settings) -> None:
    """The topics as tables."""
    kafka = settings.kafka
    source = f"{connection(kafka)}, 'properties.group.id'='{kafka.group_id}-behaviour', 'value.format'='raw'"
    tables.execute_sql(
        f"""create table events (payload bytes, `partition` int metadata virtual, `offset` bigint metadata virtual)
        with ({source}, 'topic'='{kafka.events}', 'scan.startup.mode'='{kafka.start}')"""
    )
    tables.execute_sql(
        f"""create table items (item_id string, payload bytes)
        with ({source}, 'topic'='{kafka.items}', 'scan.startup.mode'='earliest-offset',
        'key.format'='raw', 'key.fields'='item_id', 'value.fields-include'='EXCEPT_KEY')"""
    )
    for table, (key, numbers) in _TYPED.items():
        texts = [key, "kind"] if table == "trends" else [key]
        fields = [f"`{name}` string" for name in texts] + [f"`{name}` bigint" for name in numbers]
        tables.execute_sql(
            f"""create table {table} ({", ".join(fields)}) with ({sink(kafka, table)},
            'topic'='{getattr(kafka, table)}', 'value.format'='json', 'key.format'='raw', 'key.fields'='{key}')"""
        )
    for table in ("segments", "abandoned_carts", "drift"):
        tables.execute_sql(
            f"""create table {table} (user_id string, payload bytes) with ({sink(kafka, table)},
            'topic'='{getattr(kafka, table)}', 'value.format'='raw', 'key.format'='raw', 'key.fields'='user_id',
            'value.fields-include'='EXCEPT_KEY')"""
        )


def build(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """From the topics `events` and `items` to what people's behaviour comes to."""
    tables = StreamTableEnvironment.create(environment)
    create_tables(tables, settings)
    behaviour = settings.behaviour
    place = Types.ROW([Types.STRING(), BYTES, Types.INT(), Types.LONG()])
    item_id = "regexp_replace(coalesce(json_value(decode(payload, 'UTF-8'), '$.item_id'), ''), '\\p{Cs}', '?')"
    events = tables.to_append_stream(
        tables.sql_query(f"select {item_id}, row('', payload, `partition`, `offset`) from events"),
        Types.ROW([Types.STRING(), place]),
    )
    known = Types.ROW([Types.STRING(), BYTES])
    items = tables.to_append_stream(
        tables.sql_query("select item_id, row(item_id, payload) from items where item_id is not null"),
        Types.ROW([Types.STRING(), known]),
    )
    parsed = (
        keyed_in_jvm(events, place, Types.STRING())
        .connect(keyed_in_jvm(items, known, Types.STRING()))
        .process(ActionsFunction(events_of(settings).parser(), settings.privacy.key()), ACTIONS)
        .name("actions")
        .uid("actions")
    )
    # An event that is sent twice counts once, within the state's time to live.
    heard = _typed().column_by_expression("arrived", "proctime()").build()
    tables.create_temporary_view("heard", tables.from_data_stream(parsed, heard))
    once = tables.to_append_stream(
        tables.sql_query(
            f"""select {", ".join(ACTIONS.get_field_names())} from
            (select *, row_number() over (partition by user_id, event_id order by arrived) as copy from heard)
            where copy = 1"""
        ),
        ACTIONS,
    )
    lateness_ms = 1000 * behaviour.lateness_s
    by_time = _typed().column_by_expression("happened", "to_timestamp_ltz(time_ms, 3)")
    by_time = by_time.watermark("happened", f"to_timestamp_ltz(time_ms - {lateness_ms}, 3)")
    tables.create_temporary_view("actions", tables.from_data_stream(once, by_time.build()))
    inserts, most = tables.create_statement_set(), behaviour.trends
    for table, query in (
        ("sessions", _sessions()),
        ("funnel_stats", _funnels()),
        # One sink: of two, each would take the other's transactions for its own of before.
        ("trends", f"{_trends('item', 'item_id', most)} union all {_trends('category', 'category', most)}"),
    ):
        inserts.add_insert_sql(f"insert into {table} {query}")
    people = tables.to_append_stream(
        tables.sql_query(f"select user_id, row({', '.join(ACTIONS.get_field_names())}) from actions"),
        Types.ROW([Types.STRING(), ACTIONS]),
    )
    days = behaviour.new_days, behaviour.lapse_days
    options = BehaviourOptions(new_days=days[0], lapse_days=days[1], cart_ms=behaviour.cart_s * 1000)
    drift = DriftOptions(threshold=behaviour.drift_threshold)
    segments = (
        keyed_in_jvm(people, ACTIONS, Types.STRING())
        .process(BehaviourFunction(options, drift, settings.profiles.ttl_days), MESSAGE)
        .name("behaviour")
        .uid("behaviour")
    )
    inserts.add_insert("segments", tables.from_data_stream(segments))
    for table, tag in (("abandoned_carts", ABANDONED_CARTS), ("drift", DRIFT)):
        inserts.add_insert(table, tables.from_data_stream(side_output(segments, tag)))
    inserts.attach_as_datastream()
    name_table_operators(environment, TABLE_UIDS)


def events_of(settings: Settings) -> Events:
    """Which events count here: one whose clock is further ahead than others may be late would make all of them so."""
    ahead = min(settings.events.max_future_s, max(settings.behaviour.lateness_s, 60))
    return settings.events.model_copy(update={"max_future_s": ahead})


def _typed() -> Schema.Builder:
    """The columns of an action."""
    builder = Schema.new_builder()
    for name in ACTIONS.get_field_names():
        builder = builder.column(name, {"price": "DOUBLE", "time_ms": "BIGINT"}.get(name, "STRING"))
    return builder


def _sessions() -> str:
    """What each person did without a pause of half an hour."""
    return f"""select user_id, min(time_ms), max(time_ms), count(*), {_number_of("view")}, {_number_of("add_to_cart")},
        {_number_of("purchase")}, count(distinct item_id)
        from table(session(table actions partition by user_id, descriptor(happened), interval '30' minute))
        where event_type not in ('impression', 'erase_user') group by user_id, window_start, window_end"""


def _funnels() -> str:
    """Of each day and category, how far people got with an item, by the first time of each step."""
    first = ", ".join(
        f"min(case when event_type = '{kind}' then time_ms end) as {name}"
        for name, kind in (("v", "view"), ("c", "add_to_cart"), ("p", "purchase"))
    )
    steps = ("v < c", "v < c and c < p", "v is not null and c is not null", "v + c + p is not null")
    counts = ", ".join(f"sum(case when {step} then cast(1 as bigint) else 0 end)" for step in steps)
    return f"""select category, {MILLISECONDS.format("window_start")}, count(v), {counts} from (
        select window_start, window_end, user_id, item_id, coalesce(category, '') as category, {first}
        from table(tumble(table actions, descriptor(happened), interval '1' day))
        where item_id is not null group by window_start, window_end, user_id, item_id, coalesce(category, ''))
        group by window_start, window_end, category"""


def _trends(kind: str, of: str, most: int) -> str:
    """The items or categories whose actions of an hour are the most beyond those of the hour before, in standard
    deviations of a Poisson count."""
    now = "happened >= window_end - interval '1' hour"
    window, order = MILLISECONDS.format("window_end"), "(`actions` - `before`) / sqrt(`before` + 1) desc, id"
    return f"""select id, '{kind}', {window} - 3600000, {window}, `actions`, `people`, `before` from (
          select *, row_number() over (partition by window_start, window_end order by {order}) as `place` from (
            select {of} as id, window_start, window_end,
              sum(case when {now} then cast(1 as bigint) else 0 end) as `actions`,
              count(distinct case when {now} then user_id end) as `people`,
              sum(case when {now} then cast(0 as bigint) else 1 end) as `before`
            from table(hop(table actions, descriptor(happened), interval '1' hour, interval '2' hour))
            where {of} is not null and event_type <> 'impression' group by window_start, window_end, {of}
            having sum(case when {now} then 1 else 0 end) > 0))
        where `place` <= {most}"""


def _number_of(kind: str) -> str:
    return f"sum(case when event_type = '{kind}' then cast(1 as bigint) else 0 end)"


def options_of(settings: Settings) -> dict[str, str]:
    """How long an event is remembered by its id."""
    ttl = f"{settings.behaviour.duplicates_s * 1000}"
    return {"table.exec.state.ttl": ttl}


def main() -> None:
    """Validate the configuration, then submit."""
    run("headrace-behaviour", __doc__, build, options_of)


if __name__ == "__main__":
    main()
