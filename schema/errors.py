"""What is wrong with a message, in words that a dead letter can carry."""

SHOWN_CHARACTERS = 200


class MessageError(ValueError):
    """A message that breaks its contract.

    `code` is stable: empty, too_large, not_utf8, not_json, not_an_object, missing_field, wrong_type,
    unknown_event_type, absurd_timestamp, id_too_long, empty_id, reserved_id, bad_profile, absurd_number or unkeyed.
    `field` is the field at fault, None where it is the whole message. `value` shows what was given, in at most 200
    characters.
    """

    def __init__(self, code: str, field: str | None = None, value: str = "", reason: str = "") -> None:
        value = value[:SHOWN_CHARACTERS]
        # All four, so that the error survives pickling between processes.
        super().__init__(code, field, value, reason)
        self.code = code
        self.field = field
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field or 'message'}: {self.reason or self.code} (given: {self.value})"


def shown(value: object) -> str:
    """A repr of at most 200 characters; a long text is cut before it is copied."""
    if isinstance(value, str | bytes):
        value = value[:SHOWN_CHARACTERS]
    try:
        return repr(value)[:SHOWN_CHARACTERS]
    except RecursionError:
        return f"a {type(value).__name__} of many levels"
