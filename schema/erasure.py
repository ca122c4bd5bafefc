"""Receipts of erasure: the topic `erasures`."""

import sys
import time
from typing import Literal

import msgspec

from schema.wire import decode

PARTS = ("profile", "model", "lists")
Part = Literal["profile", "model", "lists"]


class Erasure(msgspec.Struct):
    """A part of the job that holds nothing more under the name of the user whom the `erase_user` event `event_id` was
    about: the profile, the model (its log and its reservoir of users), or the lists. The user is not named. All three
    parts send one. `erased_at` is in epoch milliseconds."""

    event_id: str
    part: Part
    erased_at: int


_DECODER = msgspec.json.Decoder(Erasure)


def receipt(event_id: str, part: Part) -> bytes:
    """The receipt as JSON, made now."""
    return msgspec.json.encode(Erasure(event_id, part, int(time.time() * 1000)))


def decode_erasure(raw: bytes) -> Erasure:
    """The receipt in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)
