"""Creates the topics that Headrace reads and writes; they must exist before the job starts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from config.kafka import Kafka


class Topic(msgspec.Struct, frozen=True):
    """How a topic is created. A compacted one keeps the newest value of every key; `configs` are the broker's own."""

    partitions: int = 1
    compacted: bool = False
    configs: dict[str, str] = {}


def default_topics(partitions: int = 1) -> dict[str, Topic]:
    """The topics under their default names, `events` with that many partitions."""
    return {
        "events": Topic(partitions),
        "items": Topic(compacted=True),
        "rules": Topic(compacted=True),
        **{name: Topic(compacted=True) for name in ("experiments", "experiment-results")},
        "forbidden-items": Topic(compacted=True),
        "review-queue": Topic(compacted=True),
        "review-decisions": Topic(compacted=True),
        "recommendations": Topic(compacted=True),
        **{name: Topic(compacted=True) for name in ("similar-items", "category-items")},
        "taste-segments": Topic(compacted=True),
        **{name: Topic(compacted=True) for name in ("campaigns", "segments")},
        **{name: Topic() for name in ("offers", "offer-tries", "exposures")},
        **{name: Topic() for name in ("sessions", "funnel-stats", "trends", "abandoned-carts", "drift")},
        "dead-letters": Topic(),
        "erasures": Topic(),
    }


def topics_of(kafka: "Kafka") -> dict[str, Topic]:
    """The topics under the names that a configuration gives them."""
    return {getattr(kafka, name.replace("-", "_")): topic for name, topic in default_topics().items()}


def create_topics(bootstrap_servers: str, topics: Mapping[str, Topic]) -> list[str]:
    """Create those that do not exist and return their names; existing ones stay as they are.

    Returns when every new partition has a leader. Raises kafka.errors.KafkaError where the broker refuses.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import TopicAlreadyExistsError

    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        existing = set(admin.list_topics())
        created = []
        for name, topic in topics.items():
            if name in existing:
                continue
            configs = {"cleanup.policy": "compact" if topic.compacted else "delete", **topic.configs}
            try:
                admin.create_topics(
                    {name: {"num_partitions": topic.partitions, "replication_factor": 1, "configs": configs}},
                    wait_for_metadata=True,
                )
                created.append(name)
            except TopicAlreadyExistsError:
                continue  # someone else was quicker
        return created
    finally:
        admin.close()
