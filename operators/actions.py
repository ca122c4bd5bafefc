"""Keyed by item: parses events, and says of each what category and price its item has, as the catalogue last said."""

import time
from collections.abc import Callable, Iterator

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from schema.errors import MessageError
from schema.event import EventParser
from schema.item import parse_item
from schema.pseudonym import pseudonym

_VERSION, _ARRAY_OF_TWO = 1, 0x92
_CATEGORY_LENGTH = 256
ACTIONS = Types.ROW_NAMED(
    ["user_id", "event_id", "event_type", "item_id", "category", "price", "time_ms"],
    [Types.STRING(), Types.STRING(), Types.STRING(), Types.STRING(), Types.STRING(), Types.DOUBLE(), Types.LONG()],
)


class ActionsFunction(KeyedCoProcessFunction):
    """In: Row(item_id, payload, partition, offset) of events, and Row(item_id, payload) of the catalogue, None where
    the item is removed. Out: rows of `ACTIONS`; an event's own `properties.category` and `price` come before the
    catalogue's. What is malformed is left out: the main job makes dead letters of it. So are events without consent.

    Keyed state `item`: category and price.
    """

    def __init__(self, parser: Callable[[], EventParser], pseudonym_key: bytes | None) -> None:
        self._make_parser, self._pseudonym = parser, pseudonym_key

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        self._parser = self._make_parser()
        self._item = runtime_context.get_state(ValueStateDescriptor("item", Types.PICKLED_BYTE_ARRAY()))
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._taken, self._refused = metrics.counter("actions_taken"), metrics.counter("actions_refused")

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Hand on one event."""
        _, payload, _, _ = value
        try:
            event = self._parser.parse(None if payload is None else bytes(payload), int(time.time() * 1000))
        except MessageError:
            self._refused.inc()
            return
        if not event.consent:
            return
        user = event.user_id if self._pseudonym is None else pseudonym(self._pseudonym, event.user_id)
        packed = self._item.value() if event.item_id is not None else None
        category, price = (None, None) if packed is None else _unpacked(bytes(packed))
        said = (event.properties or {}).get("category")
        category = said[:_CATEGORY_LENGTH] if isinstance(said, str) and said else category
        price = price if event.price is None else event.price
        self._taken.inc()
        yield Row(user, event.event_id, event.event_type, event.item_id, category, price, event.timestamp)

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Take what the catalogue says of the item."""
        item_id, payload = value
        try:
            _, item = parse_item(item_id, None if payload is None else bytes(payload))
        except MessageError:
            return
        if item is None:
            self._item.clear()
        else:
            known = item.category[0] if item.category else None, item.price
            self._item.update(bytes((_VERSION,)) + msgspec.msgpack.encode(known))
        yield from ()


def _unpacked(packed: bytes) -> tuple[str | None, float | None]:
    """Also what was written before it had a version: MessagePack, which begins an array of two with another byte."""
    if packed[0] not in (_VERSION, _ARRAY_OF_TWO):
        raise ValueError(f"state of an item has version {packed[0]}, this code reads {_VERSION}")
    return msgspec.msgpack.decode(packed[packed[0] == _VERSION :], type=tuple[str | None, float | None])
