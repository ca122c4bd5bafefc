"""The section `kafka` of the configuration: where the topics are, and how one gets in."""

import ssl
from typing import Annotated, Any, Literal

from pydantic import Field, FilePath, SecretStr, model_validator

from config.loading import Section


class Kafka(Section):
    """Where the topics are."""

    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: str = "headrace"
    events: str = "events"
    items: str = "items"
    rules: str = "rules"
    experiments: str = "experiments"
    experiment_results: str = "experiment-results"
    review_queue: str = "review-queue"
    review_decisions: str = "review-decisions"
    recommendations: str = "recommendations"
    similar_items: str = "similar-items"
    taste_segments: str = "taste-segments"
    campaigns: str = "campaigns"
    offers: str = "offers"
    sessions: str = "sessions"
    funnel_stats: str = "funnel-stats"
    trends: str = "trends"
    segments: str = "segments"
    abandoned_carts: str = "abandoned-carts"
    drift: str = "drift"
    dead_letters: str = "dead-letters"
    erasures: str = "erasures"
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
