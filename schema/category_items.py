"""What is popular in a category: the compacted topic `category-items`."""

import sys

import msgspec

from schema.similar_items import SimilarItem
from schema.wire import decode


class CategoryItems(msgspec.Struct):
    """Key `category`: the available items of the category, at whatever depth it stands in theirs, that people take most
    these days, best first, as of `generated_at` (epoch milliseconds). A score of 1 is the most popular's."""

    category: str
    generated_at: int
    items: list[SimilarItem]


_DECODER, _ENCODER = msgspec.json.Decoder(CategoryItems), msgspec.json.Encoder()


def decode_category_items(raw: bytes) -> CategoryItems:
    """The message in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)


def encode_category_items(items: CategoryItems) -> bytes:
    """JSON."""
    return _ENCODER.encode(items)
