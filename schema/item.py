"""What the shop sells: the compacted topic `items`."""

import math
from collections.abc import Iterable

import msgspec

from schema.errors import MessageError, shown
from schema.wire import Amount, Id, Millis, Number, decode, epoch_ms, id_text

MAX_ID_LENGTH = 256
MAX_BYTES = 1_048_576
# Years 1 and 9999: a catalogue also holds old books and things still to come.
_EARLIEST_MS, _LATEST_MS = -62_135_596_800_000, 253_402_300_799_999


class Item(msgspec.Struct, omit_defaults=True):
    """One article. `category` runs from broad to narrow, `created_at` is in epoch milliseconds. `relations` name,
    by what the shop calls the relation, the items that this one belongs to: a case those that it is an accessory of.
    `attributes` are what else the shop's rules ask for."""

    # May be absent on the wire, where the key then stands for it.
    item_id: Id = ""
    title: str | None = None
    description: str | None = None
    category: list[str] = msgspec.field(default_factory=list)
    brand: str | None = None
    seller: str | None = None
    price: Amount | None = None
    currency: str | None = None
    available: bool = True
    created_at: Millis | None = None
    image_url: str | None = None
    embeddings: dict[str, list[Number]] | None = None
    relations: dict[str, list[Id]] | None = None
    attributes: dict[str, str | bool | Number] | None = None


_DECODER = msgspec.json.Decoder(Item)
_ENCODER = msgspec.json.Encoder()


def parse_item(key: str | None, raw: bytes | None, max_bytes: int = MAX_BYTES) -> tuple[str, Item | None]:
    """The item's id and the item, None where it is removed (no value, or JSON null); raises MessageError."""
    item = None if raw is None or raw == b"null" else decode(_DECODER, raw, max_bytes)
    item_id: str | None = key if item is None or item.item_id == "" else item.item_id
    if item_id is None:
        raise MessageError("missing_field", "item_id", "nothing", "neither in the value nor as the key")
    item_id = id_text("item_id", item_id, MAX_ID_LENGTH)
    if item is None:
        return item_id, None
    item.item_id = item_id
    for kind, others in (item.relations or {}).items():
        others[:] = [id_text(f"relations.{kind}", other, MAX_ID_LENGTH) for other in others]
    if item.created_at is not None:
        item.created_at = epoch_ms("created_at", item.created_at)
    if item.created_at is not None and not _EARLIEST_MS <= item.created_at <= _LATEST_MS:
        reason = "must lie in the years 1 to 9999, as epoch milliseconds"
        raise MessageError("absurd_timestamp", "created_at", shown(item.created_at), reason)
    return item_id, item


def with_embedding(raw: bytes, name: str, vector: Iterable[float]) -> bytes:
    """The message `raw`, which `parse_item` takes, with one embedding more, and else as it was; or as it was where it
    would be too large, or the vector holds what is no number."""
    # Fields that nobody knows need not even be valid.
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    embeddings = msgspec.json.decode(fields.get("embeddings", msgspec.Raw(b"null")), type=dict[str, msgspec.Raw] | None)
    numbers = [round(float(number), 6) for number in vector]
    added = {**(embeddings or {}), name: msgspec.Raw(msgspec.json.encode(numbers))}
    fields["embeddings"] = msgspec.Raw(msgspec.json.encode(added))
    encoded = msgspec.json.encode(fields)
    return encoded if len(encoded) <= MAX_BYTES and all(map(math.isfinite, numbers)) else raw


def encode_item(item: Item) -> bytes:
    """JSON; fields at their defaults are left out."""
    return _ENCODER.encode(item)
