"""Which segment a person is of by what they take: the compacted topic `taste-segments`."""

import sys

import msgspec

from schema.wire import decode


class TasteSegment(msgspec.Struct):
    """The `segment` that the model has the person in, numbered from 0, since `assigned_at` (epoch milliseconds). It is
    sent when it changes; once more after a restart."""

    user_id: str
    segment: int
    assigned_at: int


_DECODER = msgspec.json.Decoder(TasteSegment)
_ENCODER = msgspec.json.Encoder()


def decode_taste_segment(raw: bytes) -> TasteSegment:
    """The message in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)


def encode_taste_segment(segment: TasteSegment) -> bytes:
    """JSON."""
    return _ENCODER.encode(segment)
