"""How JSON becomes a struct: one typed decode, and the search for the fault only where that failed."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from schema.errors import MessageError, shown

T = TypeVar("T")

ABSURD_NUMBER = 1e12

if TYPE_CHECKING:
    Id = str
    Millis = int
else:
    # What the wire may bring and the parsers turn into the types above: one decode then serves both spellings.
    Id = str | int
    Millis = int | float | Annotated[datetime, msgspec.Meta(tz=True)]

# Bounded well inside float32, which the model computes in.
Number = Annotated[float, msgspec.Meta(ge=-ABSURD_NUMBER, le=ABSURD_NUMBER)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=ABSURD_NUMBER)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | None, max_bytes: int) -> T:
    """Decode one JSON object; raises MessageError with the first field at fault."""
    if not raw:
        raise MessageError("empty", None, shown(raw), "no payload")
    if len(raw) > max_bytes:
        raise MessageError("too_large", None, shown(raw), f"{len(raw)} bytes, at most {max_bytes} are taken")
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _fault(raw, decoder.type, error) from None


def id_text(field: str, value: str | int, max_length: int) -> str:
    """An id as text of 1 to `max_length` characters; raises MessageError."""
    text = value if isinstance(value, str) else str(value)
    if 0 < len(text) <= max_length:
        return text
    if not text:
        raise MessageError("empty_id", field, shown(text), "an id must not be empty")
    raise MessageError("id_too_long", field, shown(text), f"{len(text)} characters, at most {max_length} are taken")


def epoch_ms(field: str, moment: int | float | datetime) -> int:
    """Milliseconds since 1970 UTC, rounded down; raises MessageError on a number that is not whole."""
    if isinstance(moment, datetime):
        return (moment - _EPOCH) // _MILLISECOND
    # To JSON 1.7e12 is as whole as 1700000000000.
    if isinstance(moment, float) and not moment.is_integer():
        raise MessageError("wrong_type", field, shown(moment), "epoch milliseconds must be a whole number")
    return int(moment)


def _fault(raw: bytes, struct: type, error: Exception) -> MessageError:
    if not raw.strip():
        return MessageError("empty", None, shown(raw), "no payload")
    try:
        text = raw.decode()
    except UnicodeDecodeError as not_utf8:
        at = not_utf8.start
        return MessageError("not_utf8", None, shown(raw[at:]), f"byte {at} is not UTF-8")
    try:
        msgspec.json.decode(raw)
    except msgspec.ValidationError:
        pass  # JSON whose numbers do not fit; the field is found below
    except (msgspec.DecodeError, RecursionError) as not_json:
        return MessageError("not_json", None, shown(text), str(not_json))
    try:
        given = _OBJECT.decode(raw)
    except msgspec.ValidationError:
        return MessageError("not_an_object", None, shown(text), "a JSON object is expected")
    except msgspec.DecodeError as not_json:
        # A number out of range came before the place where the JSON breaks.
        return MessageError("not_json", None, shown(text), str(not_json))
    for name, required, decoder in _fields(struct):
        if name not in given:
            if required:
                return MessageError("missing_field", name, "nothing", "required")
            continue
        try:
            decoder.decode(given[name])
        except msgspec.DecodeError as wrong:
            reason = str(wrong)
            out_of_range = "out of range" in reason or ">=" in reason or "<=" in reason
            code = "absurd_number" if out_of_range else "wrong_type"
            return MessageError(code, name, bytes(given[name]).decode(), reason)
    # A field given twice, of which only the last is sound.
    return MessageError("wrong_type", None, shown(text), str(error))


@cache
def _fields(struct: type) -> list[tuple[str, bool, msgspec.json.Decoder[Any]]]:
    """The name of each field, whether it must be there, and what reads it alone: msgspec works them out anew each time,
    which takes longer than the rest of a fault."""
    fields = msgspec.structs.fields(struct)
    return [(field.encode_name, field.required, msgspec.json.Decoder(field.type)) for field in fields]
