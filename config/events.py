"""The section `events` of the configuration."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated

from pydantic import Field, PositiveInt, field_validator

from config.loading import Section
from schema.event import EVENT_TYPES, EventParser
from schema.vocabulary import VOCABULARIES, vocabulary


class Events(Section):
    """What is a valid event, and what its type is worth."""

    vocabularies: list[str] = []
    vocabulary: dict[str, str] = {}
    max_bytes: PositiveInt = 65_536
    max_id_length: PositiveInt = 256
    max_future_s: PositiveInt = 86_400
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    liked_from: float | None = None

    @field_validator("vocabularies")
    @classmethod
    def _known_vocabularies(cls, names: list[str]) -> list[str]:
        _require_known("", names, VOCABULARIES)
        return names

    @field_validator("vocabulary")
    @classmethod
    def _known_targets(cls, table: dict[str, str]) -> dict[str, str]:
        _require_known("event types ", table.values(), EVENT_TYPES)
        return table

    @field_validator("weights")
    @classmethod
    def _known_types(cls, weights: dict[str, float]) -> dict[str, float]:
        _require_known("event types ", weights, EVENT_TYPES)
        return weights

    def parser(self, imports: bool = False) -> "partial[EventParser]":
        """Makes a parser of these events, and with `imports` of profiles too."""
        types = vocabulary(self.vocabularies, self.vocabulary)
        bounds = self.max_bytes, self.max_id_length, self.max_future_s * 1000
        return partial(EventParser, types, *bounds, imports=imports)


def _require_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"unknown {what}{', '.join(unknown)}; known are {', '.join(known)}")
