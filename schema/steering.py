"""How messages by which the shop steers are read: JSON objects, refused with every fault."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from schema.errors import MessageError, shown

MAX_BYTES = 65_536
_log = logging.getLogger(__name__)
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)
"""Of every such message: no field that is not known, nothing converted where a field does not say so, no infinity."""
T = TypeVar("T", bound=BaseModel)


def parse_steering(
    name: str,
    model: type[T],
    key: str | None,
    raw: bytes | None,
    misfits: Callable[[dict[str, Any]], list[str]] = lambda _: [],
) -> tuple[str, T | None]:
    """The id and the message, whose field of the id is `name` and "_id", None where it is taken back (no value, or JSON
    null). Raises MessageError with every fault. `misfits` says which of the fields do not go together: the model, which
    looks at that too, does not where a field alone is at fault."""
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
        said = [f"{place or name} = {shown(value)}: {reason}" for place, reason, value in found]
        said += misfits(given) if all(place for place, _, _ in found) else []
        raise MessageError(code, ", ".join(place for place, _, _ in found), shown(raw), "; ".join(said)) from None
    own: str = getattr(message, field)
    if key is not None and key != own:
        raise MessageError(code, field, shown(own), f"the message's key is {shown(key)}")
    return own, message


def taken_before(parse: Callable[[str | None, bytes], tuple[str, T | None]], raw: bytes) -> T | None:
    """What is kept of a message that was taken, None where the rules of now, which may be stricter, refuse it: then it
    rests until it is sent anew."""
    try:
        return parse(None, raw)[1]
    except MessageError as error:
        _log.warning("what was taken before is valid no more: %s", error)
        return None


def fields_of(name: str, raw: bytes) -> dict[str, Any]:
    """The fields of a JSON object; raises MessageError."""
    if len(raw) > MAX_BYTES:
        raise MessageError("too_large", None, shown(raw), f"{len(raw)} bytes, at most {MAX_BYTES} are taken")
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"bad_{name}", None, shown(raw), f"a JSON object is expected: {error}") from None
