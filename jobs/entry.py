"""What every job does before it is a job of its own: its configuration, Flink's settings, and how Kafka is reached."""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pyflink.datastream import StreamExecutionEnvironment

# Imports make what stays; to look through it again and again meanwhile takes a second of a submission.
gc.disable()

from config.kafka import Kafka
from config.loading import SettingsError
from jobs.flink import settings_of
from jobs.settings import Settings, load_settings

gc.enable()

MILLISECONDS = "1000 * extract(epoch from {0}) + extract(millisecond from {0})"
"""SQL: a moment in epoch milliseconds."""
USER_ID = "regexp_replace(coalesce(json_value(decode(payload, 'UTF-8'), '$.user_id'), ''), '\\p{Cs}', '?')"
"""SQL: the user's id in an event's payload. Half of a surrogate pair is text to Java, on which its way to Python fails;
the parser refuses such a message."""


def run(
    name: str,
    said: str | None,
    build: Callable[[StreamExecutionEnvironment, Settings], None],
    more: Callable[[Settings], Mapping[str, str]] = lambda _: {},
) -> None:
    """Validate the configuration, build the job, and submit it. A faulty configuration stops here with every fault.
    `said` describes the job, `more` are options of Flink beside `flink_options`."""
    arguments = argparse.ArgumentParser(description=said)
    arguments.add_argument("--config", type=Path, help="TOML file; HEADRACE_SECTION__FIELD overrides it")
    try:
        settings = load_settings(arguments.parse_args().config)
    except SettingsError as error:
        sys.exit(str(error))
    options = flink_options(settings) | dict(more(settings))
    environment = StreamExecutionEnvironment.get_execution_environment(settings_of(options))
    environment.set_parallelism(settings.flink.parallelism)
    build(environment, settings)
    environment.execute(name)


def flink_options(settings: Settings) -> dict[str, str]:
    """What a production job must set, beyond what the cluster's own configuration says."""
    return {
        "python.execution-mode": "thread",
        # `MILLISECONDS` and windows of days count from midnight in this zone.
        "table.local-time-zone": "UTC",
        # A batch is one element; a larger bundle would only delay it.
        "python.fn-execution.bundle.size": "1",
        "execution.buffer-timeout.interval": f"{settings.flink.buffer_timeout_ms}ms",
        "state.backend.type": "rocksdb",
        # Profiles repeat ids: less than half of what Snappy leaves, at the same events/s (`bench state`).
        "state.backend.rocksdb.compression.per.level": "ZSTD_COMPRESSION",
        "execution.checkpointing.interval": f"{settings.flink.checkpoint_interval_ms}ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        # A full disk is to be alarmed about, not to stop the lists.
        "execution.checkpointing.tolerable-failed-checkpoints": str(settings.flink.tolerable_failed_checkpoints),
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(settings.flink.restart_attempts),
        "restart-strategy.fixed-delay.delay": f"{settings.flink.restart_delay_s}s",
        "pipeline.object-reuse": "true",
        "pipeline.max-parallelism": str(settings.flink.max_parallelism),
    }


def connection(kafka: Kafka) -> str:
    """SQL options of every table: where the broker is, and how one gets in."""
    escaped = {key: value.replace("'", "''") for key, value in kafka.client_properties().items()}
    extra = "".join(f", 'properties.{key}'='{value}'" for key, value in escaped.items())
    return f"'connector'='kafka', 'properties.bootstrap.servers'='{kafka.bootstrap_servers}'{extra}"


def sink(kafka: Kafka, transactions: str, delivery: str | None = None) -> str:
    """SQL options of every table that is written: those of `connection`, and by what ids its transactions are told,
    where `delivery`, or else the configured one, has any. A sink that begins ends all that are told by its ids, so no
    other sink may have them, nor another shop's on the same broker, which reads under a group of its own."""
    return (
        f"{connection(kafka)}, 'sink.delivery-guarantee'='{delivery or kafka.delivery}', "
        f"'sink.transactional-id-prefix'='{kafka.group_id}-{transactions}', "
        f"'properties.transaction.timeout.ms'='{kafka.transaction_timeout_ms}'"
    )
