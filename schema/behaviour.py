"""What people's behaviour comes to: the topics `segments`, `abandoned-carts` and `drift`, and, made by Flink SQL,
`sessions`, `funnel-stats` and `trends`. Times are in epoch milliseconds."""

import sys
from typing import Literal, TypeVar

import msgspec

from schema.wire import decode

Segment = Literal["new", "regular", "loyal", "lapsing"]
T = TypeVar("T", bound=msgspec.Struct)


class PersonSegment(msgspec.Struct):
    """Compacted, key `user_id`: which segment the person is of since `since`, by event time, and whether they buy what
    is cheap among what they look at. A null value after erasure."""

    user_id: str
    segment: Segment
    price_sensitive: bool
    since: int


class AbandonedCart(msgspec.Struct):
    """Key `user_id`: the items that the person put into the cart and neither bought nor took out, an hour after the
    last of it, the newest last."""

    user_id: str
    items: list[str]
    last_added_at: int


class Drift(msgspec.Struct):
    """Key `user_id`: the person's interests have changed. `since` is when the session began from which on it shows,
    `score` by how much it passed the threshold, and `categories` are what they take now, the most first."""

    user_id: str
    detected_at: int
    since: int
    score: float
    categories: list[str]


class Session(msgspec.Struct):
    """Key `user_id`: what a person did without a pause of half an hour."""

    user_id: str
    started_at: int
    ended_at: int
    events: int
    views: int
    carts: int
    purchases: int
    items: int


class FunnelStats(msgspec.Struct):
    """Key `category`: of a day and a category, how many times a person viewed an item, then put it into the cart, then
    bought it, in that order (`strict_`), and how many did the later steps in whatever order (`any_`)."""

    category: str
    day: int
    viewed: int
    strict_carted: int
    strict_purchased: int
    any_carted: int
    any_purchased: int


class Trend(msgspec.Struct):
    """Key `id`: an item or a category that was among the most taken of an hour, how often and by how many people, and
    how often in the hour before that in which it was taken."""

    kind: Literal["item", "category"]
    id: str
    window_start: int
    window_end: int
    actions: int
    people: int
    before: int


def decode_behaviour(raw: bytes, kind: type[T]) -> T:
    """The message in `raw`; raises MessageError."""
    return decode(msgspec.json.Decoder(kind), raw, sys.maxsize)


def encode_behaviour(message: PersonSegment | AbandonedCart | Drift) -> bytes:
    """JSON."""
    return msgspec.json.encode(message)
