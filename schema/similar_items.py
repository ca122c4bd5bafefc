"""What goes with an item: the compacted topic `similar-items`."""

import sys

import msgspec

from schema.wire import decode


class SimilarItem(msgspec.Struct, gc=False):
    """An item that goes with another, and how well: comparable within one message only."""

    item_id: str
    score: float


class SimilarItems(msgspec.Struct):
    """The items that people have together with `item_id`, best first, as of `generated_at` (epoch milliseconds)."""

    item_id: str
    generated_at: int
    model_version: int
    items: list[SimilarItem]


_DECODER = msgspec.json.Decoder(SimilarItems)
_ENCODER = msgspec.json.Encoder()


def decode_similar_items(raw: bytes) -> SimilarItems:
    """The message in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)


def encode_similar_items(similar: SimilarItems) -> bytes:
    """JSON."""
    return _ENCODER.encode(similar)
