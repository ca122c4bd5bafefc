"""Campaigns, live: `flink run -py jobs/marketing.py --config FILE`. Who gets which offer, within budget and pace."""

from pyflink.common import Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from jobs.entry import USER_ID, connection, run, sink
from jobs.flink import keyed_in_jvm, name_table_operators, side_output
from jobs.recommend import BYTES
from jobs.settings import Settings
from operators.campaign_candidates import (
    CANDIDATE,
    CANDIDATES,
    EVENT,
    SEGMENT,
    SHARDS,
    CampaignCandidatesFunction,
)
from operators.campaign_fan_out import TOLD, CampaignFanOutFunction
from operators.dead_letters import DEAD_LETTERS
from operators.door import PseudonymFunction
from operators.offers import CAMPAIGN, OFFERS, TRIES, OffersFunction

TABLE_UIDS: dict[str, tuple[str, str | None]] = {
    **{
        f"KafkaSource-default_catalog.default_database.{table}": (table, None)
        for table in ("events", "segments", "campaigns")
    },
    "offers[": ("offers-sink", None),
    "offer_tries[": ("offer_tries-sink", None),
    "dead_letters[": ("dead_letters-sink", None),
}
"""Names that the table planner gives, and the uids of those operators, as in `jobs.recommend`."""


def create_tables(tables: StreamTableEnvironment, settings: Settings) -> None:
    """The topics as tables."""
    kafka = settings.kafka
    source = f"{connection(kafka)}, 'properties.group.id'='{kafka.group_id}-marketing', 'value.format'='raw'"
    keyed = "'key.format'='raw', 'key.fields'='id', 'value.fields-include'='EXCEPT_KEY'"
    for table, topic in (("segments", kafka.segments), ("campaigns", kafka.campaigns)):
        tables.execute_sql(
            f"""create table {table} (id string, payload bytes,
            `partition` int metadata virtual, `offset` bigint metadata virtual)
            with ({source}, 'topic'='{topic}', {keyed}, 'scan.startup.mode'='earliest-offset')"""
        )
    tables.execute_sql(
        f"""create table events (payload bytes) with ({source}, 'topic'='{kafka.events}',
        'scan.startup.mode'='{kafka.start}')"""
    )
    # Exactly once whatever `kafka.delivery` says: an offer that is decided anew after a restart would be one too many.
    for table, topic in (("offers", kafka.offers), ("offer_tries", kafka.offer_tries)):
        tables.execute_sql(
            f"""create table {table} (id string, payload bytes) with ({sink(kafka, table, "exactly-once")},
            'topic'='{topic}', 'value.format'='raw', {keyed})"""
        )
    tables.execute_sql(
        f"""create table dead_letters (payload bytes) with ({sink(kafka, "marketing-dead-letters")},
        'topic'='{kafka.dead_letters}', 'value.format'='raw')"""
    )


def build(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """From the topics of events, segments and campaigns to offers, and to who was tried."""
    tables = StreamTableEnvironment.create(environment)
    create_tables(tables, settings)
    heard = Types.ROW([Types.INT(), BYTES])
    keyed = Types.ROW([Types.STRING(), heard])
    events = tables.to_append_stream(tables.sql_query(f"select {USER_ID}, row({EVENT}, payload) from events"), keyed)
    pseudonym_key = settings.privacy.key()
    if pseudonym_key is not None:
        # As the job of behaviour names people.
        events = events.map(PseudonymFunction(pseudonym_key), keyed).name("pseudonyms").uid("pseudonyms")
    segments = tables.to_append_stream(
        tables.sql_query(f"select id, row({SEGMENT}, payload) from segments where id is not null"), keyed
    )
    candidates = (
        keyed_in_jvm(events.union(segments), heard, Types.STRING())
        .process(CampaignCandidatesFunction(settings.events.parser(), SHARDS, settings.profiles.ttl_days), CANDIDATES)
        .name("campaign candidates")
        .uid("campaign-candidates")
    )
    campaigns = tables.to_append_stream(
        # A message without a key is refused for having the wrong one.
        tables.sql_query(
            "select coalesce(id, ''), row(coalesce(id, ''), payload, `partition`, `offset`) from campaigns"
        ),
        Types.ROW([Types.STRING(), CAMPAIGN]),
    )
    tables.create_temporary_view("messages", tables.from_data_stream(campaigns).alias("id", "message"))
    # A union keeps no state; a join with the shards would.
    copies = " union all ".join(f"select cast({shard} as bigint), message from messages" for shard in SHARDS)
    of_shards = tables.to_append_stream(tables.sql_query(copies), Types.ROW([Types.LONG(), CAMPAIGN]))
    told = (
        keyed_in_jvm(candidates, CANDIDATE, Types.LONG())
        .connect(keyed_in_jvm(of_shards, CAMPAIGN, Types.LONG()))
        .process(CampaignFanOutFunction(), TOLD)
        .name("campaign fan-out")
        .uid("campaign-fan-out")
    )
    offers = (
        keyed_in_jvm(told, CANDIDATE, Types.STRING())
        .connect(keyed_in_jvm(campaigns, CAMPAIGN, Types.STRING()))
        .process(OffersFunction(settings.kafka.campaigns), OFFERS)
        .name("offers")
        .uid("offers")
    )
    inserts = tables.create_statement_set()
    inserts.add_insert("offers", tables.from_data_stream(offers))
    inserts.add_insert("offer_tries", tables.from_data_stream(side_output(offers, TRIES)))
    inserts.add_insert("dead_letters", tables.from_data_stream(side_output(offers, DEAD_LETTERS)))
    inserts.attach_as_datastream()
    name_table_operators(environment, TABLE_UIDS)


def main() -> None:
    """Validate the configuration, then submit."""
    run("headrace-marketing", __doc__, build)


if __name__ == "__main__":
    main()
