"""What people do in the shop: the topic `events`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import msgspec

from schema.errors import MessageError, shown
from schema.recommendation import is_default
from schema.wire import Amount, Id, Millis, Number, decode, epoch_ms, id_text

# Stored states hold the index: append only.
EventType = Literal[
    "view",
    "add_to_cart",
    "remove_from_cart",
    "favorite",
    "purchase",
    "rating",
    "search",
    "impression",
    "dislike",
    "erase_user",
]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
IMPORT_PROFILE = "import_profile"
"""Not a thing that a person did: their profile from `headrace bootstrap`, base64 in the property `profile`."""
EARLIEST_MS = 315_532_800_000
"""1980: no shop's events are older."""
ITEM_EVENT_TYPES = frozenset(EVENT_TYPES) - {"search", "erase_user"}


class Event(msgspec.Struct, omit_defaults=True, gc=False):
    """One thing a person did. `timestamp` is in epoch milliseconds, `event_type` one of EVENT_TYPES.

    With `consent` false the event may serve the person's session and nothing else: it enters no profile and no model.
    """

    event_id: Id
    user_id: Id
    event_type: str
    timestamp: Millis
    item_id: Id | None = None
    value: Number | None = None
    quantity: Amount | None = None
    price: Amount | None = None
    currency: str | None = None
    query: str | None = None
    session_id: Id | None = None
    list_id: Id | None = None
    properties: dict[str, Any] | None = None
    consent: bool = True


_ENCODER = msgspec.json.Encoder()


class EventParser:
    """Turns payloads into events.

    `vocabulary` maps foreign event types to ours. Timestamps are taken from `earliest_ms` (epoch milliseconds) up to
    `max_future_ms` after the reader's clock; ids hold up to `max_id_length` characters; `imports` says whether profiles
    are taken too. Raises ValueError where the vocabulary leads to a type that does not exist.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, str] = MappingProxyType({}),
        max_bytes: int = 65_536,
        max_id_length: int = 256,
        max_future_ms: int = 86_400_000,
        earliest_ms: int = EARLIEST_MS,
        imports: bool = False,
    ) -> None:
        if unknown := sorted(set(vocabulary.values()) - set(EVENT_TYPES)):
            raise ValueError(f"vocabulary leads to unknown event types: {', '.join(unknown)}")
        self._types = {name: name for name in EVENT_TYPES} | dict(vocabulary)
        if imports:
            self._types[IMPORT_PROFILE] = IMPORT_PROFILE
        self._max_bytes = max_bytes
        self._max_id_length = max_id_length
        self._max_future_ms = max_future_ms
        self._earliest_ms = earliest_ms
        self._decoder = msgspec.json.Decoder(Event)

    def parse(self, raw: bytes | None, now_ms: int) -> Event:
        """The event in `raw`, read at `now_ms` (epoch milliseconds); raises MessageError."""
        event = decode(self._decoder, raw, self._max_bytes)
        longest = self._max_id_length
        event.event_id = id_text("event_id", event.event_id, longest)
        event.user_id = id_text("user_id", event.user_id, longest)
        if is_default(event.user_id):
            raise MessageError("reserved_id", "user_id", shown(event.user_id), "names the list for new people")

        event_type = self._types.get(event.event_type)
        if event_type is None:
            raise MessageError("unknown_event_type", "event_type", shown(event.event_type), "in no vocabulary in use")
        event.event_type = event_type

        if type(event.timestamp) is not int:
            event.timestamp = epoch_ms("timestamp", event.timestamp)
        if not self._earliest_ms <= event.timestamp <= now_ms + self._max_future_ms:
            reason = f"must lie between {self._earliest_ms} and {now_ms + self._max_future_ms} epoch milliseconds"
            raise MessageError("absurd_timestamp", "timestamp", shown(event.timestamp), reason)

        if event.item_id is not None:
            event.item_id = id_text("item_id", event.item_id, longest)
        elif event_type in ITEM_EVENT_TYPES:
            raise MessageError("missing_field", "item_id", "nothing", f"required by {event_type}")
        if event.value is None and event_type == "rating":
            raise MessageError("missing_field", "value", "nothing", "required by rating")

        if event.session_id is not None:
            event.session_id = self._optional_id("session_id", event.session_id)
        if event.list_id is not None:
            event.list_id = self._optional_id("list_id", event.list_id)
        return event

    def _optional_id(self, field: str, value: str) -> str | None:
        # Trackers send "" for "no session": not worth losing the event for.
        return None if value == "" else id_text(field, value, self._max_id_length)


def encode_event(event: Event) -> bytes:
    """JSON; fields that have their defaults are left out."""
    return _ENCODER.encode(event)
