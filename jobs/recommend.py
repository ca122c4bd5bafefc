"""The main job: `flink run -py jobs/recommend.py --config FILE`. One event in, one better list out."""

from functools import partial

from pyflink.common import Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import Schema, StreamTableEnvironment, Table

from jobs.entry import MILLISECONDS, USER_ID, connection, run, sink
from jobs.flink import (
    buffer_for,
    key_per_subtask,
    keyed_in_jvm,
    name_table_operators,
    process_mode,
    side_output,
    slot_with_gpus,
)
from jobs.settings import Settings
from operators.category_items import CATEGORY_ITEMS
from operators.dead_letters import DEAD_LETTERS
from operators.door import PseudonymFunction
from operators.forbidden_items import FORBIDDEN_ITEMS
from operators.item_encoder import ItemEncoderFunction
from operators.learner import DELTA, DELTAS, TOPIC_STEP, LearnerFunction
from operators.micro_batch import micro_batches
from operators.profile import BATCH, EVENT, FORMER_SNAPSHOTS, SEGMENT, SNAPSHOTS, UNKEYED, ProfileFunction
from operators.receipts import RECEIPTS
from operators.review import REVIEW_QUEUE
from operators.scorer import LISTS, ScorerFunction
from operators.similar import SIMILAR
from operators.taste_segments import TASTE_SEGMENTS

TABLE_UIDS = {
    "KafkaSource-default_catalog.default_database.events": ("events", "cbc357ccb763df2852fee8c4fc7d55f2"),
    "KafkaSource-default_catalog.default_database.items": ("items", "6cdc5bb954874d922eaee11a8e7b5dd5"),
    "KafkaSource-default_catalog.default_database.segments": ("segments", None),
    "KafkaSource-default_catalog.default_database.rules": ("rules", None),
    "KafkaSource-default_catalog.default_database.review_decisions": ("review-decisions", None),
    "KafkaSource-default_catalog.default_database.experiments": ("experiments", None),
    "WindowAggregate[32]": ("steering-window", None),
    "WindowAggregate[10]": ("snapshot-window", "309e0aa10f951ee63f7be62e93bc0b37"),
    "WindowAggregate[19]": ("catalogue-window", "a7656bc88070ceb7fdbe4bea9f8054df"),
    **{
        f"{table}[": (f"{table}-sink", None)
        for table in (
            "recommendations",
            "dead_letters",
            "erasures",
            "similar_items",
            "category_items",
            "forbidden_items",
            "review_queue",
            "taste_segments",
        )
    },
}
"""Names that the table planner gives, and the uids of those operators: a contract, as all uids are."""
_SELDOM_MS = 20
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
CATALOGUE = Types.ROW([Types.OBJECT_ARRAY(Types.ROW([Types.STRING(), BYTES, Types.INT(), Types.LONG()]))])
MESSAGE = Types.ROW([Types.STRING(), BYTES, Types.INT(), Types.LONG(), Types.INT()])


def create_tables(tables: StreamTableEnvironment, settings: Settings, linger_ms: int = 0) -> None:
    """The topics as tables; payloads stay bytes, so that a malformed message reaches Python whole. What is written
    waits `linger_ms` for more."""
    kafka = settings.kafka
    common = connection(kafka)
    place = "`partition` int metadata virtual, `offset` bigint metadata virtual"
    source = f"'properties.group.id'='{kafka.group_id}', 'value.format'='raw'"
    tables.execute_sql(
        f"""create table events (payload bytes, {place}, appended_at timestamp_ltz(3) metadata from 'timestamp' virtual)
        with ({common}, 'topic'='{kafka.events}', 'scan.startup.mode'='{kafka.start}', {source})"""
    )
    for table in ("items", "segments", "rules", "review_decisions", "experiments"):
        tables.execute_sql(
            f"""create table {table} (id string, payload bytes, {place}, arrived as proctime())
            with ({common}, 'topic'='{getattr(kafka, table)}', 'scan.startup.mode'='earliest-offset', {source},
            'key.format'='raw', 'key.fields'='id', 'value.fields-include'='EXCEPT_KEY')"""
        )
    # A micro-batch's lists in few requests, where the default of 16 kB holds a dozen, and at once: they come together,
    # and gather while the one request before them is under way.
    raw = f"""'value.format'='raw', 'properties.batch.size'='262144', 'properties.linger.ms'='{linger_ms}',
        'properties.max.in.flight.requests.per.connection'='1'"""
    keyed = (
        ("recommendations", kafka.recommendations, "user_id", "lists"),
        ("similar_items", kafka.similar_items, "item_id", "similar"),
        ("category_items", kafka.category_items, "category", "categories"),
        ("review_queue", kafka.review_queue, "item_id", "reviews"),
        ("forbidden_items", kafka.forbidden_items, "item_id", "forbidden"),
        ("taste_segments", kafka.taste_segments, "user_id", "tastes"),
    )
    for table, topic, key, prefix in keyed:
        tables.execute_sql(
            f"""create table {table} ({key} string, payload bytes)
            with ({sink(kafka, prefix)}, 'topic'='{topic}', {raw},
            'key.format'='raw', 'key.fields'='{key}', 'value.fields-include'='EXCEPT_KEY')"""
        )
    for table, topic in (("dead_letters", kafka.dead_letters), ("erasures", kafka.erasures)):
        tables.execute_sql(
            f"""create table {table} (payload bytes)
            with ({sink(kafka, table)}, 'topic'='{topic}', {raw})"""
        )


def one_by_one(tables: StreamTableEnvironment, name: str, batches: DataStream) -> DataStream:
    """Each message of the batches by itself, with how many are of its batch, which come one after another: thread mode
    makes every row of an array of rows the last one."""
    tables.create_temporary_view(name, tables.from_data_stream(batches).alias("one", "batch"))
    return tables.to_append_stream(
        tables.sql_query(
            f"""select cast(0 as bigint), row(id, payload, place, `offset`, cardinality({name}.batch.f0))
            from {name} cross join unnest({name}.batch.f0) as message(id, payload, place, `offset`)"""
        ),
        Types.ROW([Types.LONG(), MESSAGE]),
    )


def by_key(tables: StreamTableEnvironment, name: str, messages: DataStream) -> Table:
    """Each message by itself, of a stream of maps from keys to payloads: Python hands on those of a micro-batch
    together, as each would be a call into the JVM."""
    tables.create_temporary_view(name, tables.from_data_stream(messages).alias("messages"))
    return tables.sql_query(f"select id, payload from {name} cross join unnest(messages) as message(id, payload)")


def former_batches(tables: StreamTableEnvironment, profiles: DataStream, window: str) -> DataStream:
    """What a savepoint may hold of the time before events were gathered: then snapshots were, in windows. Nothing new
    comes of it."""
    by_time = Schema.new_builder().column_by_expression("arrived", "PROCTIME()")
    snapshots = by_time.column("shard", "BIGINT").column("request", "BYTES").build()
    former = tables.from_data_stream(side_output(profiles, FORMER_SNAPSHOTS), snapshots)
    tables.create_temporary_view("snapshots", former)
    return tables.to_append_stream(
        tables.sql_query(
            f"""select shard, row(shard, array_agg(request)) from table(tumble(table snapshots, {window}))
            group by shard, window_start, window_end"""
        ),
        SNAPSHOTS,
    )


def build(
    environment: StreamExecutionEnvironment,
    settings: Settings,
    learner: type[LearnerFunction] = LearnerFunction,
    scorer: type[ScorerFunction] = ScorerFunction,
    profile: type[ProfileFunction] = ProfileFunction,
) -> None:
    """The way of an event, from the topic `events` to the topic `recommendations`."""
    tables = StreamTableEnvironment.create(environment)
    create_tables(tables, settings)
    kafka, lists = settings.kafka, settings.lists
    shards = key_per_subtask(settings.flink.parallelism, settings.flink.max_parallelism)
    event_type = Types.ROW([Types.STRING(), BYTES, Types.INT(), Types.LONG(), Types.LONG()])
    events = tables.to_append_stream(
        tables.sql_query(
            f"""select {USER_ID} as user_id,
            row(if({USER_ID} = '', '{UNKEYED}', '{EVENT}'), payload, `partition`, `offset`,
              {MILLISECONDS.format("appended_at")}) from events"""
        ),
        Types.ROW([Types.STRING(), event_type]),
    )
    pseudonym_key = settings.privacy.key()
    if pseudonym_key is not None:
        hashed = PseudonymFunction(pseudonym_key)
        events = events.map(hashed, Types.ROW([Types.STRING(), event_type])).name("pseudonyms").uid("pseudonyms")
    # Under pseudonyms already.
    segments = tables.to_append_stream(
        tables.sql_query(
            f"""select id, row('{SEGMENT}', payload, `partition`, `offset`, cast(0 as bigint)) from segments
            where id is not null"""
        ),
        Types.ROW([Types.STRING(), event_type]),
    )
    profiles = (
        micro_batches(keyed_in_jvm(events.union(segments), event_type, Types.STRING()), settings.flink.window_ms)
        .process(
            profile(
                settings.profile_options(),
                settings.events.parser(imports=True),
                kafka.events,
                shards,
                settings.profiles.ttl_days,
                settings.profiles.cache_mb,
                pseudonym_key,
            ),
            SNAPSHOTS,
        )
        .name("profile")
        .uid("profile")
    )
    window = f"descriptor(arrived), interval '{settings.flink.window_ms / 1000:.3f}' second(2, 3)"
    former = former_batches(tables, profiles, window)
    batches = profiles.union(former)
    tables.create_temporary_view("batches", tables.from_data_stream(batches).alias("shard", "batch"))
    for_learner = tables.to_append_stream(
        tables.sql_query("select cast(0 as bigint), batch from batches"), Types.ROW([Types.LONG(), BATCH])
    )
    catalogue = tables.to_append_stream(
        tables.sql_query(
            f"""select cast(0 as bigint), row(array_agg(row(id, payload, `partition`, `offset`)))
            from table(tumble(table items, {window}))
            group by window_start, window_end"""
        ),
        Types.ROW([Types.LONG(), CATALOGUE]),
    )

    steered = (
        f"select id, payload, `partition` + {step * TOPIC_STEP} as place, `offset`, arrived from {table}"
        for step, table in enumerate(("rules", "review_decisions", "experiments"), 1)
    )
    tables.create_temporary_view("steering", tables.sql_query(" union all ".join(steered)))
    steering = tables.to_append_stream(
        tables.sql_query(
            f"""select cast(0 as bigint), row(array_agg(row(id, payload, place, `offset`)))
            from table(tumble(table steering, {window})) group by window_start, window_end"""
        ),
        Types.ROW([Types.LONG(), CATALOGUE]),
    )

    if encodings := settings.encodings():
        encoder = ItemEncoderFunction(encodings)
        with process_mode(environment):
            encoded = catalogue.process(encoder, Types.ROW([Types.LONG(), CATALOGUE]))
        # One, so that messages keep their order.
        catalogue = encoded.name("item_encoder").uid("item-encoder").set_parallelism(1)
    catalogue, steering = one_by_one(tables, "catalogue", catalogue), one_by_one(tables, "steered", steering)
    model_learner = learner(
        settings.blend_options(),
        shards,
        kafka.events,
        (kafka.items, kafka.rules, kafka.review_decisions, kafka.experiments),
        settings.models.compact_after_events,
        lists.similar_items,
        settings.models.start_from,
        settings.flink.target_freshness_ms,
        settings.models.sequence_time_share,
    )
    deltas = (
        keyed_in_jvm(for_learner, BATCH, Types.LONG())
        .connect(keyed_in_jvm(catalogue.union(steering), MESSAGE, Types.LONG()))
        .process(model_learner, DELTAS)
        .name("learner")
        .uid("learner")
        .set_parallelism(1)
        # A slot, so a TaskManager, of its own: nobody waits for the GIL of another. So has the scorer.
        .slot_sharing_group("learner")
    )
    ranked = (
        keyed_in_jvm(batches, BATCH, Types.LONG())
        .connect(keyed_in_jvm(deltas, DELTA, Types.LONG()))
        .process(
            scorer(
                settings.blend_options(),
                kafka.events,
                lists.k,
                lists.send_unchanged,
                lists.remembered_users,
                settings.flink.target_freshness_ms,
            ),
            LISTS,
        )
        .name("scorer")
        .uid("scorer")
        .slot_sharing_group(slot_with_gpus("scorer", settings.flink.scorer_gpus))
    )

    # Of events there are many; of all else, micro-batches and their lists too, few.
    for stream in (segments, catalogue, steering):
        buffer_for(stream, _SELDOM_MS, before=True)
    for stream in (profiles, former, for_learner, catalogue, steering, deltas, ranked):
        buffer_for(stream, 0)

    inserts = tables.create_statement_set()
    inserts.add_insert("recommendations", by_key(tables, "new_lists", ranked))
    inserts.add_insert("similar_items", by_key(tables, "new_similar_items", side_output(deltas, SIMILAR)))
    for table, tag in (("dead_letters", DEAD_LETTERS), ("erasures", RECEIPTS)):
        first, *others = (side_output(stream, tag) for stream in (profiles, deltas, ranked))
        inserts.add_insert(table, tables.from_data_stream(first.union(*others)))
    inserts.add_insert("category_items", tables.from_data_stream(side_output(deltas, CATEGORY_ITEMS)))
    inserts.add_insert("forbidden_items", tables.from_data_stream(side_output(deltas, FORBIDDEN_ITEMS)))
    inserts.add_insert("review_queue", tables.from_data_stream(side_output(deltas, REVIEW_QUEUE)))
    uids = dict(TABLE_UIDS)
    if settings.models.user_segments:
        inserts.add_insert("taste_segments", tables.from_data_stream(side_output(ranked, TASTE_SEGMENTS)))
    else:
        del uids["taste_segments["]
    inserts.attach_as_datastream()
    name_table_operators(environment, uids)


def main(learner: type[LearnerFunction] = LearnerFunction, scorer: type[ScorerFunction] = ScorerFunction) -> None:
    """Validate the configuration, then submit."""
    run("headrace", __doc__, partial(build, learner=learner, scorer=scorer))


if __name__ == "__main__":
    main()
