"""What a person should see next: the compacted topic `recommendations`."""

import sys
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from schema.wire import decode

# The key of the list for people with no history.
DEFAULT_USER = "__default__"
_IN_CONTEXT = f"{DEFAULT_USER}?"


def default_user(context: Mapping[str, object]) -> str:
    """The key of the list for people with no history in a context, as `__default__?country=DE&device=phone`: what it
    says by name, in the order of the names and encoded as in the query of a URL, without what is empty. Numbers are
    written without a fraction where they have none."""
    told = urlencode([(name, text) for name in sorted(context) if (text := _text(context[name]))])
    return _IN_CONTEXT + told if told else DEFAULT_USER


def is_default(user_id: str) -> bool:
    """Whether the key is of a list for people with no history, in a context or in none."""
    return user_id == DEFAULT_USER or user_id.startswith(_IN_CONTEXT)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


class ScoredItem(msgspec.Struct, gc=False, omit_defaults=True):
    """An item of a list, with its score, what proposed it, and `because` of which item of the person's history. Where
    chance put it there, `propensity` is the chance with which it did. `rules` are those of the shop's that put or kept
    it where it is. Where it is there for its content, `shared` is what it has in common with that item: "category:" and
    its levels, "brand:", "word:" and the word, in lower case, or "price"."""

    item_id: str
    score: float
    source: str
    because: str | None = None
    propensity: float | None = None
    rules: list[str] | None = None
    shared: str | None = None


class Recommendation(msgspec.Struct):
    """A user's list, best first. Times are in epoch milliseconds; `event_id` is the event that caused the list."""

    user_id: str
    list_id: str
    generated_at: int
    event_id: str | None
    event_timestamp: int | None
    model_version: int
    strategy: str
    items: list[ScoredItem]
    # How many of the user's events the list reflects; model_version counts all events and catalogue changes learned.
    profile_version: int = 0
    # The newest time of those events: it tells a profile that began anew, once it had expired, from an older version.
    last_seen: int | None = None
    # Which of the model's segments the person is of; None while that is not known.
    segment: int | None = None
    # The person's arm in each experiment that they are in.
    experiments: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(Recommendation)
_ENCODER = msgspec.json.Encoder()


def decode_recommendation(raw: bytes) -> Recommendation:
    """The list in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)


def encode_recommendation(recommendation: Recommendation) -> bytes:
    """JSON."""
    return _ENCODER.encode(recommendation)
