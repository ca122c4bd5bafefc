"""The configuration of the job: one TOML file, environment overrides, every fault reported at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from model.blend import BlendOptions
from model.cooccurrence import CooccurrenceOptions
from model.learned_blend import LearnedBlendOptions
from model.linear_item_model import LinearItemModelOptions
from model.matrix_factorization import MatrixFactorizationOptions
from model.popularity import PopularityOptions
from model.private_counts import PrivacyOptions
from model.profile import DEFAULT_WEIGHTS, ProfileOptions
from model.user_neighbours import UserNeighboursOptions
from schema.event import EVENT_TYPES
from schema.pseudonym import MIN_KEY_BYTES
from schema.vocabulary import VOCABULARIES, vocabulary

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class SettingsError(ValueError):
    """The configuration is not valid; the message lists every fault."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kafka(_Section):
    """Where the topics are."""

    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: str = "headrace"
    events: str = "events"
    items: str = "items"
    recommendations: str = "recommendations"
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


class Events(_Section):
    """What is a valid event, and what its type is worth."""

    vocabularies: list[str] = []
    vocabulary: dict[str, str] = {}
    max_bytes: PositiveInt = 65_536
    max_id_length: PositiveInt = 256
    max_future_s: PositiveInt = 86_400
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}

    @field_validator("vocabularies")
    @classmethod
    def _known_vocabularies(cls, names: list[str]) -> list[str]:
        unknown = sorted(set(names) - set(VOCABULARIES))
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(VOCABULARIES)}")
        return names

    @field_validator("vocabulary")
    @classmethod
    def _known_targets(cls, table: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(table.values()) - set(EVENT_TYPES))
        if unknown:
            raise ValueError(f"maps to unknown event types {', '.join(unknown)}; known are {', '.join(EVENT_TYPES)}")
        return table

    @field_validator("weights")
    @classmethod
    def _known_types(cls, weights: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(weights) - set(EVENT_TYPES))
        if unknown:
            raise ValueError(f"unknown event types {', '.join(unknown)}; known are {', '.join(EVENT_TYPES)}")
        return weights


class Profiles(_Section):
    """Bounds of a user's state."""

    max_interactions: PositiveInt = 200
    max_event_ids: PositiveInt = 64
    history_length: Annotated[int, Field(ge=1, le=1024)] = 50
    allowed_lateness_s: PositiveInt = 86_400
    ttl_days: PositiveFloat = 180
    cache_mb: Annotated[int, Field(ge=0)] = 64


class Lists(_Section):
    """What is sent."""

    k: Annotated[int, Field(ge=1, le=1000)] = 20
    horizon: Literal["next", "any"] = "next"
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    exclude: Literal["none", "purchased", "seen"] = "purchased"
    send_unchanged: bool = False
    remembered_users: PositiveInt = 100_000


class Models(_Section):
    """The models and their blend."""

    device: str = "auto"
    max_items: Annotated[int, Field(ge=100)] = 200_000
    neighbours: PositiveInt = 384
    dimensions: Annotated[int, Field(ge=2, le=512)] = 64
    reservoir: PositiveInt = 4096
    step: PositiveInt = 256
    popularity_half_life_days: PositiveFloat = 14.0
    cooccurrence_weight: Annotated[float, Field(ge=0)] = 1.0
    factorization_weight: Annotated[float, Field(ge=0)] = 0.3
    linear_items: PositiveInt = 2048
    linear_regularization: PositiveFloat = 100.0
    popularity_weight: Annotated[float, Field(gt=0)] = 0.01
    user_neighbours: NonNegativeInt = 0
    candidates: Annotated[int, Field(ge=1, le=10_000)] = 50
    blend_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.3
    blend_users: PositiveInt = 4096
    compact_after_events: PositiveInt = 50_000


class Privacy(_Section):
    """How users are named, and how much of one may show in what is learned from all."""

    pseudonym_key: SecretStr = SecretStr("")
    pseudonym_key_file: FilePath | None = None
    noise_multiplier: Annotated[float, Field(ge=0)] = 0.0
    max_contributions: Annotated[int, Field(ge=1)] = 50
    release_interactions: PositiveInt = 10_000

    @model_validator(mode="after")
    def _is_long_enough(self) -> "Privacy":
        key = self.key()
        if key is not None and not MIN_KEY_BYTES <= len(key) <= 64:
            raise ValueError(f"the pseudonym key has {len(key)} bytes, {MIN_KEY_BYTES} to 64 are needed")
        return self

    def key(self) -> bytes | None:
        """The key of the pseudonyms, None for user ids as they are."""
        file, given = self.pseudonym_key_file, self.pseudonym_key.get_secret_value()
        return (file.read_text().strip() if file else given).encode() or None


class Flink(_Section):
    """How the job runs."""

    window_ms: Annotated[int, Field(ge=1, le=10_000)] = 50
    buffer_timeout_ms: Annotated[int, Field(ge=0)] = 5
    parallelism: PositiveInt = 1
    max_parallelism: PositiveInt = 128
    checkpoint_interval_ms: Annotated[int, Field(ge=100)] = 5_000
    tolerable_failed_checkpoints: NonNegativeInt = 1_000
    restart_attempts: PositiveInt = 1_000_000
    restart_delay_s: PositiveInt = 1


class Settings(BaseSettings):
    """The whole configuration; each field can be set as HEADRACE_SECTION__FIELD in the environment."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    kafka: Kafka = Kafka()
    events: Events = Events()
    profiles: Profiles = Profiles()
    lists: Lists = Lists()
    models: Models = Models()
    privacy: Privacy = Privacy()
    flink: Flink = Flink()

    @model_validator(mode="after")
    def _bounds_contributions(self) -> "Settings":
        # An item outside of the history could count twice for one person.
        kept = min(self.profiles.history_length, self.profiles.max_interactions)
        if self.privacy.noise_multiplier and self.privacy.max_contributions > kept:
            raise ValueError(
                "privacy.max_contributions must not exceed profiles.history_length nor profiles.max_interactions"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, the file before the defaults."""
        file = os.environ.get("HEADRACE_CONFIG")
        return (env_settings, TomlConfigSettingsSource(settings_cls, file)) if file else (env_settings,)

    def vocabulary(self) -> dict[str, str]:
        """Foreign event types and ours."""
        return vocabulary(self.events.vocabularies, self.events.vocabulary)

    def profile_options(self) -> ProfileOptions:
        """The part that the profile needs."""
        return ProfileOptions(
            max_interactions=self.profiles.max_interactions,
            max_event_ids=self.profiles.max_event_ids,
            history_length=self.profiles.history_length,
            allowed_lateness_ms=self.profiles.allowed_lateness_s * 1000,
            exclude=self.lists.exclude,
            weights=DEFAULT_WEIGHTS | self.events.weights,
        )

    def blend_options(self) -> BlendOptions:
        """The part that the models need."""
        models, private = self.models, self.privacy.noise_multiplier > 0
        return BlendOptions(
            cooccurrence=CooccurrenceOptions(neighbours=models.neighbours),
            factorization=MatrixFactorizationOptions(
                dimensions=models.dimensions, reservoir=models.reservoir, step=models.step
            ),
            linear=LinearItemModelOptions(slots=models.linear_items, regularization=models.linear_regularization),
            popularity=PopularityOptions(half_life_ms=models.popularity_half_life_days * 86_400_000),
            # Under differential privacy nothing may be learned but what is released.
            weights=(
                models.cooccurrence_weight,
                0.0 if private else models.factorization_weight,
                models.popularity_weight,
            ),
            user_neighbours=UserNeighboursOptions(nearest=0 if private else models.user_neighbours),
            privacy=PrivacyOptions(
                noise_multiplier=self.privacy.noise_multiplier,
                contributions=self.privacy.max_contributions,
                release_interactions=self.privacy.release_interactions,
            ),
            learned=LearnedBlendOptions(
                candidates=models.candidates,
                learning_rate=0.0 if private else models.blend_learning_rate,
                remembered_users=models.blend_users,
            ),
            horizon=self.lists.horizon,
            diversity=self.lists.diversity,
            max_items=self.models.max_items,
            device=models.device,
        )


def load_settings(file: Path | None = None) -> Settings:
    """Read and validate the configuration. Raises SettingsError naming every field that is at fault and its value."""
    if file:
        os.environ["HEADRACE_CONFIG"] = str(file)
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc']))} = {_shown(fault)}: {fault['msg']}" for fault in error.errors()]
        # Not "from error", whose own text would show every input.
        raise SettingsError("\n".join([f"The configuration has {len(faults)} faults:", *faults])) from None
    except ValueError as error:
        raise SettingsError(f"The configuration cannot be read: {error}") from error


def _shown(fault: "ErrorDetails") -> str:
    """A faulty value, but nothing that is or may hold a secret, nor what stands under a name misspelt where secrets
    stand."""
    place, given = fault["loc"], fault["input"]
    if fault["type"] == "extra_forbidden" and place[0] in ("kafka", "privacy"):
        return "***"
    if isinstance(given, dict | BaseModel):
        return f"fields {', '.join(name for name, *_ in (given.items() if isinstance(given, dict) else given))}"
    return "***" if set(place) & {"password", "pseudonym_key", "properties"} else repr(given)
