"""What one accepted event tells the learner and the scorer: the event and the user's weighted history after it."""

import msgspec


class Snapshot(msgspec.Struct, array_like=True):
    """One accepted event and the history that it left, newest item first, each item once.

    `weights[n]` belongs to `history[n]`, and `types[n]` is the index of its last event's type. `event_index` is where
    the event's own item stands in `history`, or -1 where the event teaches nothing about items (a search, an
    impression, a late event). `excluded` are items that must not be on the list. `profile_version` is how many events
    the profile has taken. `repeated` says that the event's item was in the history before. Times are epoch
    milliseconds. `counts` says how often each item stands in the profile, at most 255, and `ages` how long before the
    event each was last taken: how many binary digits the milliseconds have; so do `gaps` of the time from each to the
    next older one, 0 for the oldest. `partition` and `offset` are the event's
    place in its topic, -1 where it is not known. `session_only` says that a list may be made of it, and nothing kept.
    `last_seen` is the newest time of the profile's events. `list_id` is the list that led to the event, where the
    shop says so, and `impression` says that the item was only seen there. `event_type` and `properties` are the
    event's, the latter as far as rules may ask for them, and `behaviour` and `price_sensitive` are the user's segment.
    """

    user_id: str
    event_id: str
    event_timestamp: int
    appended_at: int
    history: list[str]
    weights: list[float]
    event_index: int = -1
    item_id: str | None = None
    excluded: list[str] = []
    erased: bool = False
    profile_version: int = 0
    types: bytes = b""
    repeated: bool = False
    counts: bytes = b""
    ages: bytes = b""
    partition: int = -1
    offset: int = -1
    session_only: bool = False
    last_seen: int = 0
    gaps: bytes = b""
    list_id: str | None = None
    impression: bool = False
    event_type: str = ""
    properties: dict[str, str | bool | float] = {}
    behaviour: str = ""
    price_sensitive: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def pack_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as MessagePack."""
    return _encoder.encode(snapshot)


def unpack_snapshot(packed: bytes) -> Snapshot:
    """The inverse of `pack_snapshot`. Raises msgspec.DecodeError or msgspec.ValidationError on other bytes."""
    return _decoder.decode(packed)
