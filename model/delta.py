"""What changes in the recommender: what it is told beside events, and what its replicas are told."""

from itertools import chain, islice
from typing import Literal

import msgspec

from model.category_popularity import LEVELS
from model.content import ContentOptions, embedding_of, tokens_of
from model.cooccurrence import CooccurrenceDelta
from model.linear_item_model import LinearItemModelDelta
from model.matrix_factorization import MatrixFactorizationDelta
from model.popularity import PopularityDelta
from model.relations import NAMED
from model.rules import attributes_of
from model.sequence_model import SequenceDelta
from schema.errors import MessageError
from schema.item import Item

VERSION = 1
"""The version byte of packed deltas and packed recommenders."""


class CatalogueChange(msgspec.Struct, array_like=True):
    """Whether an item may be on lists from now on, its category, None where it is not said, its tokens and embedding as
    `model.content` packs them, empty where it has none, the items that it is related to, None where it is not said, and
    what rules may ask of it, as `model.rules` packs it."""

    item_id: str
    available: bool
    category: str | None = None
    content: bytes = b""
    embedding: bytes = b""
    related: list[str] | None = None
    attributes: bytes = b""


class Steering(msgspec.Struct, array_like=True):
    """A message by which the shop steers: its `kind`, key and valid payload, None where it is taken back."""

    kind: Literal["rule", "decision", "experiment"]
    key: str
    payload: bytes | None = None


def change_of(item: Item, options: ContentOptions) -> tuple[CatalogueChange, MessageError | None]:
    """What the models take of a catalogue message, and what is wrong with its embedding, if anything: the rest counts
    all the same."""
    category = LEVELS.join(item.category) or None
    # No more than count: the log holds them too.
    named = dict.fromkeys(chain.from_iterable((item.relations or {}).values()))
    related = None if item.relations is None else list(islice(named, NAMED))
    change = CatalogueChange(item.item_id, item.available, category, tokens_of(item), b"", related, attributes_of(item))
    fault: MessageError | None = None
    while True:
        try:
            change.embedding = embedding_of(item, options)
        except MessageError as error:
            # The others count all the same.
            fault = fault or error
            name = (error.field or "").removeprefix("embeddings.")
            rest = {other: vector for other, vector in (item.embeddings or {}).items() if other != name}
            item = msgspec.structs.replace(item, embeddings=rest)
            continue
        return change, fault


class Delta(msgspec.Struct, array_like=True):
    """What one call of `learn` changed: model version before and after, new item ids, and each model's part; before all
    that, which rows int64 were kept where items were forgotten, empty where none was."""

    before: int
    after: int
    new_items: list[str]
    cooccurrence: CooccurrenceDelta
    factorization: MatrixFactorizationDelta
    linear: LinearItemModelDelta
    popularity: PopularityDelta
    catalogue: list[CatalogueChange]
    kept: bytes = b""
    sequence: SequenceDelta = msgspec.field(default_factory=SequenceDelta)
    user_segments: bytes = b""
    steering: list[Steering] = []
    contexts: dict[str, PopularityDelta] = {}


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Delta)


def pack_delta(delta: Delta) -> bytes:
    """The delta as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(delta)


def unpack_delta(packed: bytes) -> Delta:
    """The inverse of `pack_delta`. Raises ValueError on a version that this code does not know."""
    require_version(packed)
    return _decoder.decode(memoryview(packed)[1:])


def require_version(packed: bytes) -> None:
    """Raises ValueError where a packed delta or recommender is of a version that this code does not know."""
    if packed[0] != VERSION:
        raise ValueError(f"model state has version {packed[0]}, this code reads {VERSION}")
