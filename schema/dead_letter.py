"""What could not be read, kept with the reason: the topic `dead-letters`."""

import base64
import sys
from typing import Literal

import msgspec

from schema.errors import MessageError
from schema.wire import decode

_MOST_BYTES, _MOST_SAID = 65_536, 8_192


class DeadLetter(msgspec.Struct, omit_defaults=True):
    """A refused message. `error` is the code of a MessageError, `message` says why, in 8,192 characters at most, and
    `received_at` is in epoch milliseconds. Of a payload of more than 65,536 bytes, which is `truncated`, it holds the
    beginning: all of it lies at its offset."""

    error: str
    message: str
    topic: str
    partition: int
    offset: int
    received_at: int
    payload: str | None
    encoding: Literal["base64"] | None = None
    truncated: bool = False

    def payload_bytes(self) -> bytes | None:
        """The payload as it was received, or its beginning where it is `truncated`; raises ValueError where it is not
        the base64 it claims to be."""
        if self.payload is None:
            return None
        if self.encoding is None:
            return self.payload.encode()
        return base64.b64decode(self.payload, validate=True)


_DECODER = msgspec.json.Decoder(DeadLetter)
_ENCODER = msgspec.json.Encoder()


def dead_letter(
    error: MessageError | tuple[str, str],
    topic: str,
    partition: int,
    offset: int,
    received_at: int,
    payload: bytes | None,
) -> bytes:
    """A dead letter as JSON, for an error or its (code, message)."""
    code, message = (error.code, str(error)) if isinstance(error, MessageError) else error
    text: str | None = None
    encoding: Literal["base64"] | None = None
    truncated = payload is not None and len(payload) > _MOST_BYTES
    if payload is not None:
        # Longer, and in JSON up to six times as long, it would be more than the broker takes.
        begin = payload[:_MOST_BYTES]
        try:
            payload.decode()
            text = begin.decode(errors="ignore")
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(begin).decode(), "base64"
    message = message[:_MOST_SAID]
    return _ENCODER.encode(DeadLetter(code, message, topic, partition, offset, received_at, text, encoding, truncated))


def decode_dead_letter(raw: bytes) -> DeadLetter:
    """The dead letter in `raw`; raises MessageError."""
    return decode(_DECODER, raw, sys.maxsize)
