"""Items that no list may hold, whoever it is for: the compacted topic `forbidden-items`."""

import sys

import msgspec

from schema.wire import decode


class ForbiddenItem(msgspec.Struct):
    """Key `item_id`: an item that a rule without a `when` keeps off lists, or that somebody forbade, since `at` (epoch
    milliseconds). A null value says that it may be on lists again. Lists that are made leave it out by themselves; this
    is for those that were made before."""

    item_id: str
    at: int


_DECODER, _ENCODER = msgspec.json.Decoder(ForbiddenItem), msgspec.json.Encoder()


def decode_forbidden_item(raw: bytes) -> ForbiddenItem:
    """The entry in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)


def encode_forbidden_item(item: ForbiddenItem) -> bytes:
    """JSON."""
    return _ENCODER.encode(item)
