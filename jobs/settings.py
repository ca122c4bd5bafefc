"""The configuration of the job: one TOML file, environment overrides, every fault reported at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FilePath, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from config.events import Events
from config.kafka import Kafka
from config.loading import FileSettings, Section, load
from config.privacy import Privacy
from model.blend import BlendOptions
from model.category_popularity import CategoryPopularityOptions
from model.content import ContentOptions
from model.context_popularity import ContextPopularityOptions
from model.cooccurrence import CooccurrenceOptions
from model.image_encoder import image_dimensions
from model.item_encoding import Encoding
from model.learned_blend import LearnedBlendOptions
from model.linear_item_model import LinearItemModelOptions
from model.matrix_factorization import MatrixFactorizationOptions
from model.popularity import PopularityOptions
from model.private_counts import PrivacyOptions
from model.profile import DEFAULT_WEIGHTS, ProfileOptions
from model.sequence_model import SequenceOptions
from model.text_encoder import text_dimensions
from model.user_neighbours import UserNeighboursOptions
from model.user_segments import UserSegmentsOptions


class Profiles(Section):
    """Bounds of a user's state."""

    max_interactions: PositiveInt = 200
    max_event_ids: PositiveInt = 64
    history_length: Annotated[int, Field(ge=1, le=1024)] = 50
    allowed_lateness_s: PositiveInt = 86_400
    ttl_days: PositiveFloat = 180
    cache_mb: Annotated[int, Field(ge=0)] = 64


class Lists(Section):
    """What is sent."""

    k: Annotated[int, Field(ge=1, le=1000)] = 20
    horizon: Literal["next", "any"] = "next"
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    exclude: Literal["none", "purchased", "seen"] = "purchased"
    explain: bool = True
    new_items_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    new_until: PositiveInt = 5
    exploration: Literal["softmax", "thompson"] = "softmax"
    similar_items: Annotated[int, Field(ge=1, le=200)] = 20
    send_unchanged: bool = False
    remembered_users: PositiveInt = 100_000


class Models(Section):
    """The models and their blend."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    start_from: FilePath | None = None
    max_items: Annotated[int, Field(ge=100)] = 200_000
    whole_catalogue: NonNegativeInt = 4096
    embeddings: dict[str, Annotated[int, Field(ge=1, le=4096)]] = {}
    text_encoder: str = ""
    text_embedding: str = "text"
    image_encoder: str = ""
    image_weights: FilePath | None = None
    image_embedding: str = "image"
    image_sources: list[Annotated[str, Field(pattern=r"^(https?|file)://.*/$")]] = []
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
    category_items: Annotated[int, Field(ge=1, le=1000)] = 50
    context: list[Annotated[str, Field(min_length=1)]] = []
    user_neighbours: NonNegativeInt = 0
    user_segments: Annotated[int, Field(ge=0, le=256)] = 0
    sequence: Literal["", "transformer", "gru"] = ""
    sequence_dimensions: Annotated[int, Field(ge=2, le=512)] = 32
    sequence_blocks: Annotated[int, Field(ge=1, le=16)] = 1
    sequence_trunk_every: PositiveInt = 1
    sequence_time_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    sequence_candidates: Annotated[int, Field(ge=0, le=10_000)] = 40
    sequence_gated: bool = False
    sequence_contrast: Annotated[float, Field(ge=0)] = 0.0
    sequence_relation_pull: Annotated[float, Field(ge=0)] = 0.0
    sequence_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    candidates: Annotated[int, Field(ge=1, le=10_000)] = 50
    blend_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.3
    blend_users: PositiveInt = 4096
    position_bias: bool = False
    compact_after_events: PositiveInt = 50_000


class Flink(Section):
    """How the job runs."""

    window_ms: Annotated[int, Field(ge=1, le=10_000)] = 25
    target_freshness_ms: Annotated[int, Field(ge=0, le=5_000)] = 500
    buffer_timeout_ms: Annotated[int, Field(ge=0)] = 5
    parallelism: PositiveInt = 1
    scorer_gpus: NonNegativeInt = 0
    max_parallelism: Annotated[int, Field(ge=1, le=32_768)] = 128
    checkpoint_interval_ms: Annotated[int, Field(ge=100)] = 10_000
    tolerable_failed_checkpoints: NonNegativeInt = 1_000
    restart_attempts: PositiveInt = 1_000_000
    restart_delay_s: PositiveInt = 1


class Behaviour(Section):
    """What `jobs/behaviour.py` makes of what people do."""

    lateness_s: Annotated[int, Field(ge=0, le=604_800)] = 600
    duplicates_s: PositiveInt = 86_400
    new_days: PositiveInt = 7
    lapse_days: PositiveInt = 7
    cart_s: PositiveInt = 3_600
    trends: Annotated[int, Field(ge=1, le=1000)] = 20
    drift_threshold: FiniteFloat = -0.5


class Settings(FileSettings):
    """The whole configuration of the job. The section `serving` of the same file is that process's own."""

    kafka: Kafka = Kafka()
    events: Events = Events()
    profiles: Profiles = Profiles()
    lists: Lists = Lists()
    models: Models = Models()
    behaviour: Behaviour = Behaviour()
    privacy: Privacy = Privacy()
    flink: Flink = Flink()
    serving: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        # All at once: of several validators only the first would be heard.
        faults = [*self._faults_of_encoders(), *self._faults_of_flink()]
        # An item outside of the history could count twice for one person.
        kept = min(self.profiles.history_length, self.profiles.max_interactions)
        if self.privacy.noise_multiplier and self.privacy.max_contributions > kept:
            faults.append(
                "privacy.max_contributions must not exceed profiles.history_length nor profiles.max_interactions"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults_of_encoders(self) -> Iterator[str]:
        models = self.models
        for name, made_by, embedding, dimensions_of in (
            ("text", models.text_encoder, models.text_embedding, text_dimensions),
            ("image", models.image_encoder, models.image_embedding, image_dimensions),
        ):
            if not made_by:
                continue
            if embedding not in models.embeddings:
                yield f"models.embeddings must name {embedding}, which models.{name}_encoder makes"
            try:
                made = dimensions_of(made_by)
            except ValueError as error:
                yield f"models.{name}_encoder: {error}"
                continue
            if made not in (None, models.embeddings.get(embedding, made)):
                yield f"models.embeddings.{embedding} must be {made}, as models.{name}_encoder makes them"
        if models.image_encoder and models.image_weights is None:
            yield "models.image_weights must name the file of models.image_encoder's weights"

    def _faults_of_flink(self) -> Iterator[str]:
        if self.flink.parallelism > self.flink.max_parallelism:
            yield "flink.parallelism must not exceed flink.max_parallelism"
        # Transactions that no checkpoint ends in time are lost; offers are in some whatever `kafka.delivery` is.
        if self.flink.checkpoint_interval_ms >= self.kafka.transaction_timeout_ms:
            yield "flink.checkpoint_interval_ms must be below kafka.transaction_timeout_ms"

    def profile_options(self) -> ProfileOptions:
        """The part that the profile needs."""
        return ProfileOptions(
            max_interactions=self.profiles.max_interactions,
            max_event_ids=self.profiles.max_event_ids,
            history_length=self.profiles.history_length,
            allowed_lateness_ms=self.profiles.allowed_lateness_s * 1000,
            exclude=self.lists.exclude,
            weights=DEFAULT_WEIGHTS | self.events.weights,
            liked_from=self.events.liked_from,
            gaps=bool(self.models.sequence),
        )

    def encodings(self) -> list[Encoding]:
        """The embeddings that are made of catalogue messages."""
        models, found = self.models, []
        if models.text_encoder:
            found.append(Encoding(models.text_embedding, models.text_encoder))
        if models.image_encoder:
            weights = str(models.image_weights.resolve()) if models.image_weights else ""
            sources = tuple(models.image_sources)
            found.append(Encoding(models.image_embedding, models.image_encoder, True, weights, sources))
        return found

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
            category_popularity=CategoryPopularityOptions(items=models.category_items),
            context=ContextPopularityOptions(properties=() if private else tuple(models.context)),
            user_neighbours=UserNeighboursOptions(nearest=0 if private else models.user_neighbours),
            user_segments=UserSegmentsOptions(segments=models.user_segments),
            privacy=PrivacyOptions(
                noise_multiplier=self.privacy.noise_multiplier,
                contributions=self.privacy.max_contributions,
                release_interactions=self.privacy.release_interactions,
            ),
            learned=LearnedBlendOptions(
                candidates=models.candidates,
                learning_rate=0.0 if private else models.blend_learning_rate,
                remembered_users=models.blend_users,
                clusters=models.user_segments,
                places=self.lists.k,
                position_bias=models.position_bias,
            ),
            content=ContentOptions(
                share=self.lists.new_items_share,
                new_until=self.lists.new_until,
                thompson=self.lists.exploration == "thompson",
                embeddings=tuple(models.embeddings.items()),
            ),
            sequence=SequenceOptions(
                network="" if private else models.sequence,
                dimensions=models.sequence_dimensions,
                blocks=models.sequence_blocks,
                trunk_every=models.sequence_trunk_every,
                history=self.profiles.history_length,
                candidates=models.sequence_candidates,
                embedding_dimensions=tuple(models.embeddings.values()),
                gated=models.sequence_gated,
                contrast=models.sequence_contrast,
                relation_pull=models.sequence_relation_pull,
                balance=models.sequence_balance,
            ),
            horizon=self.lists.horizon,
            diversity=self.lists.diversity,
            explain=self.lists.explain,
            max_items=models.max_items,
            whole_catalogue=models.whole_catalogue,
            device=models.device,
        )


def load_settings(file: Path | None = None) -> Settings:
    """Read and validate the configuration. Raises SettingsError naming every field that is at fault and its value."""
    return load(Settings, file)
