"""Items that somebody is to look at, and what they decided: the compacted topics `review-queue` and
`review-decisions`."""

import sys
from typing import Literal

import msgspec

from schema.errors import MessageError, shown
from schema.wire import Id, decode, id_text

MAX_ID_LENGTH = 256


class Review(msgspec.Struct):
    """An item that the review rules `rules` keep off lists, and since when (epoch milliseconds). It leaves the queue,
    by a null value, once it is decided or no such rule holds for it any more."""

    item_id: str
    title: str
    rules: list[str]
    flagged_at: int


class Decision(msgspec.Struct, omit_defaults=True):
    """Whether the item may be on lists, whatever review rules say: `allow`, or `forbid`, which holds without a rule
    too. `by` says who decided, `note` why. A null value takes the decision back."""

    item_id: Id
    decision: Literal["allow", "forbid"]
    by: str = ""
    note: str = ""


_REVIEWS, _DECISIONS, _ENCODER = msgspec.json.Decoder(Review), msgspec.json.Decoder(Decision), msgspec.json.Encoder()


def decode_review(raw: bytes) -> Review:
    """The entry in `raw`; raises MessageError."""
    return decode(_REVIEWS, raw, sys.maxsize)


def encode_review(review: Review) -> bytes:
    """JSON."""
    return _ENCODER.encode(review)


def parse_decision(key: str | None, raw: bytes | None) -> tuple[str, Decision | None]:
    """The item's id and the decision, None where it is taken back; raises MessageError."""
    if raw is None or raw == b"null":
        if not key:
            raise MessageError("missing_field", "item_id", "nothing", "a decision is taken back by its key")
        return key, None
    decision = decode(_DECISIONS, raw, 65_536)
    decision.item_id = id_text("item_id", decision.item_id, MAX_ID_LENGTH)
    if key is not None and key != decision.item_id:
        raise MessageError("wrong_type", "item_id", shown(decision.item_id), f"the message's key is {shown(key)}")
    return decision.item_id, decision


def encode_decision(decision: Decision) -> bytes:
    """JSON."""
    return _ENCODER.encode(decision)
