"""The section `kafka` of the configuration: where the topics are, and how one gets in."""

import ssl
from typing import Annotated, Any, Literal

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from config.loading import FileSettings, Section

TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=249)]
Brokers = Annotated[str, Field(pattern=r"^\s*[^\s,']+:\d{1,5}\s*(,\s*[^\s,']+:\d{1,5}\s*)*$")]


class Kafka(Section):
    """Where the topics are."""

    bootstrap_servers: Brokers = "127.0.0.1:9092"
    group_id: Annotated[str, Field(min_length=1)] = "headrace"
    events: TopicName = "events"
    items: TopicName = "items"
    rules: TopicName = "rules"
    experiments: TopicName = "experiments"
    experiment_results: TopicName = "experiment-results"
    exposures: TopicName = "exposures"
    forbidden_items: TopicName = "forbidden-items"
    review_queue: TopicName = "review-queue"
    review_decisions: TopicName = "review-decisions"
    recommendations: TopicName = "recommendations"
    similar_items: TopicName = "similar-items"
    category_items: TopicName = "category-items"
    taste_segments: TopicName = "taste-segments"
    campaigns: TopicName = "campaigns"
    offers: TopicName = "offers"
    offer_tries: TopicName = "offer-tries"
    sessions: TopicName = "sessions"
    funnel_stats: TopicName = "funnel-stats"
    trends: TopicName = "trends"
    segments: TopicName = "segments"
    abandoned_carts: TopicName = "abandoned-carts"
    drift: TopicName = "drift"
    dead_letters: TopicName = "dead-letters"
    erasures: TopicName = "erasures"
    start: Literal["earliest-offset", "latest-offset", "group-offsets"] = "earliest-offset"
    delivery: Literal["at-least-once", "exactly-once"] = "at-least-once"
    transaction_timeout_ms: Annotated[int, Field(ge=60_000, le=900_000)] = 900_000
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: FilePath | None = None
    ca_file: FilePath | None = None
    properties: dict[str, str] = {}

    @model_validator(mode="after")
    def _keeps_topics_apart(self) -> "Kafka":
        fields: dict[str, list[str]] = {}
        for field, kind in Kafka.__annotations__.items():
            if kind == TopicName:
                fields.setdefault(getattr(self, field), []).append(field)
        twice = [f"{topic} is that of {' and '.join(of)}" for topic, of in fields.items() if len(of) > 1]
        if twice:
            raise ValueError(f"each topic is for one kind of message, but {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _has_credentials(self) -> "Kafka":
        if self.security_protocol.startswith("SASL") and not (self.username and self._password()):
            raise ValueError("SASL needs username, and password or password_file")
        return self

    def _password(self) -> str:
        return self.password_file.read_text().strip() if self.password_file else self.password.get_secret_value()

    def client_properties(self) -> dict[str, str]:
        """Properties of the connector's Kafka clients."""
        if self.security_protocol == "PLAINTEXT":
            return self.properties
        secure: dict[str, str] = {"security.protocol": self.security_protocol}
        if self.ca_file:
            secure |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.ca_file.resolve())}
        if self.security_protocol.startswith("SASL"):
            module = "plain.PlainLoginModule" if self.sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
            # The connector carries the Kafka clients under names of its own.
            module = f"org.apache.flink.kafka.shaded.org.apache.kafka.common.security.{module}"
            name, word = (text.replace("\\", "\\\\").replace('"', '\\"') for text in (self.username, self._password()))
            secure |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.jaas.config": f'{module} required username="{name}" password="{word}";',
            }
        return secure | self.properties

    def python_client(self) -> dict[str, Any]:
        """Arguments of kafka-python's clients."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self._password(),
            }
        return arguments


class KafkaSettings(FileSettings):
    """The section alone, of a file whose others are not looked at."""

    model_config = SettingsConfigDict(extra="ignore")

    kafka: Kafka = Kafka()
