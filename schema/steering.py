"""How messages by which the shop steers are read: JSON objects, refused with every fault."""

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from schema.errors import MessageError, shown

MAX_BYTES = 65_536
T = TypeVar("T", bound=BaseModel)


def parse_steering(name: str, model: type[T], key: str | None, raw: bytes | None) -> tuple[str, T | None]:
    """The id and the message, whose field of the id is `name` and "_id", None where it is taken back (no value, or JSON
    null). Raises MessageError with every fault."""
    field, code = f"{name}_id", f"bad_{name}"
    if raw is None or raw == b"null":
        if not key:
            raise MessageError("missing_field", field, "nothing", f"a {name} is taken back by its key")
        return key, None
    given = fields_of(name, raw)
    try:
        message = model.model_validate(given)
    except ValidationError as error:
        found = [(".".join(map(str, fault["loc"])), fault["msg"], fault["input"]) for fault in error.errors()]
        said = "; ".join(f"{place or name} = {shown(value)}: {reason}" for place, reason, value in found)
        raise MessageError(code, ", ".join(place for place, _, _ in found), shown(raw), said) from None
    own: str = getattr(message, field)
    if key is not None and key != own:
        raise MessageError(code, field, shown(own), f"the message's key is {shown(key)}")
    return own, message


def fields_of(name: str, raw: bytes) -> dict[str, Any]:
    """The fields of a JSON object; raises MessageError."""
    if len(raw) > MAX_BYTES:
        raise MessageError("too_large", None, shown(raw), f"{len(raw)} bytes, at most {MAX_BYTES} are taken")
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"bad_{name}", None, shown(raw), f"a JSON object is expected: {error}") from None
