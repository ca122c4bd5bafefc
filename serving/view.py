"""The newest list of every user, the catalogue, what goes with each item, and what the shop steers by and sees of
itself, in RocksDB on this machine's disk."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from rocksdict import BlockBasedOptions, Options, Rdict, WriteBatch

from schema.behaviour import PersonSegment, decode_behaviour
from schema.category_items import decode_category_items
from schema.errors import MessageError
from schema.forbidden_item import decode_forbidden_item
from schema.item import Item, encode_item, parse_item
from schema.recommendation import Recommendation, decode_recommendation
from schema.similar_items import decode_similar_items

RESTARTED_MS = 86_400_000
"""A list of a lower version whose profile has events more than a day younger is of a profile that began anew, as its
state had expired. A job that reads events again after a failure never makes such a list: within one profile the newest
time never falls."""

MAX_ABSENCE_S = 43_200.0
"""Half of the time for which a broker keeps, by default, what says that a key was removed (`delete.retention.ms`)."""

_LIST, _ITEM, _GONE, _SIMILAR, _PLACE, _NUMBER, _CATEGORY, _WORD, _MARK = (bytes((c, 0)) for c in b"rigsonctm")
_ROW, _SEGMENT, _FORBIDDEN, _POPULAR = (bytes((c, 0)) for c in b"dpfh")
_SEARCHED, _WORDS = 20_000, 8


class Row(NamedTuple):
    """A message of a table: the key that it is kept by, and its period: of a table only the rows of the highest one are
    kept. `message` is what it holds. One of a lower `number` does not take the place of a higher one, which may have
    come by another partition."""

    key: str
    period: int
    message: object
    number: int = 0


class Record(NamedTuple):
    """A message of one of the topics, with its place."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Mark(msgspec.Struct, array_like=True):
    """Of the lists that were taken for a user, the highest profile version, and the newest time of a profile's events.
    A session without consent, whose lists have no version, does not lower it."""

    version: int = 0
    last_seen: int = 0


_mark = msgspec.msgpack.Decoder(Mark)
_item = msgspec.json.Decoder(Item)


class View:
    """What the topics hold, by key. Values, and the offsets that they come from, are written in one batch, so that a
    process that is killed goes on where its view stands. One thread may write while others read.

    A view that has not heard of its topics for half a day is begun anew: what was removed from a
    compacted topic meanwhile may have left no trace there, and an erased person must not live on here.

    `recommendations`, `items` and `similar_items` are the names of the topics. `tables` are topics of which messages
    are kept as they are, and as which row each; these raise MessageError where a message is not to be taken. `segments`
    is the topic of people's segments, of which there are counts, `forbidden_items` that of items that no list may hold,
    `category_items` that of what is popular in a category.
    """

    def __init__(
        self,
        folder: Path,
        recommendations: str,
        items: str,
        similar_items: str,
        tables: Mapping[str, Callable[[str, bytes], Row]] = MappingProxyType({}),
        segments: str = "segments",
        forbidden_items: str = "forbidden-items",
        category_items: str = "category-items",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        table = BlockBasedOptions()
        table.set_bloom_filter(10, False)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        self._db = Rdict(str(folder), options)
        if self.absence_s() > MAX_ABSENCE_S:
            self._db.close()
            Rdict.destroy(str(folder), options)
            self._db = Rdict(str(folder), options)
        if not self._number("seen"):
            self.seen()
        self._take: dict[str, Callable[[_Batch, str, bytes | None], bool]] = {
            recommendations: self._take_list,
            items: self._take_item,
            similar_items: partial(self._take_whole, _SIMILAR, decode_similar_items),
            category_items: partial(self._take_whole, _POPULAR, decode_category_items),
            segments: self._take_segment,
            forbidden_items: self._take_forbidden,
            **{topic: partial(self._take_row, topic, row_of) for topic, row_of in tables.items()},
        }
        self.users, self.items = (self._number(name) for name in ("users", "items"))
        self.segments = Counter(
            {name.decode(): self._number(f"segment {name.decode()}") for name in self._below(_NUMBER + b"segment ")}
        )
        # Few, and asked for with each list.
        self._hidden = {mark: {key.decode() for key in self._below(mark)} for mark in (_GONE, _FORBIDDEN)}
        self.gone = set[str]().union(*self._hidden.values())

    def absence_s(self) -> float:
        """Seconds since the view was as new as its topics."""
        return time.time() - self._number("seen", time.time())

    def seen(self) -> None:
        """Remember that the topics hold nothing newer than the view, as of now."""
        self._db[_NUMBER + b"seen"] = str(int(time.time())).encode()

    def close(self) -> None:
        """Write what is in memory, and let go of the folder."""
        self._db.close()

    def place(self, topic: str, partition: int) -> int | None:
        """The offset to go on from, None where nothing was read."""
        stored = self._db.get(_PLACE + f"{topic}\0{partition}".encode())
        return None if stored is None else int(stored)

    def cluster(self) -> str | None:
        """The id of the Kafka cluster that the view was made of."""
        stored = self._db.get(_NUMBER + b"cluster")
        return None if stored is None else stored.decode()

    def belongs_to(self, cluster: str) -> None:
        """Remember the id of the Kafka cluster."""
        self._db[_NUMBER + b"cluster"] = cluster.encode()

    def apply(self, records: Iterable[Record]) -> list[str]:
        """Take messages in their order, in one write; returns the keys of lists that changed. What cannot be read is
        passed over: the job sets aside what is wrong of the catalogue, and makes nothing else of the rest."""
        batch, changed = _Batch(self._db), dict[str, None]()
        for record in records:
            key = None if record.key is None else record.key.decode(errors="replace")
            if key is not None and self._take[record.topic](batch, key, record.value):
                changed[key] = None
            batch.put(_PLACE + f"{record.topic}\0{record.partition}".encode(), str(record.offset + 1).encode())
        users, items = self.users + batch.users, self.items + batch.items
        batch.put(_NUMBER + b"users", str(users).encode())
        batch.put(_NUMBER + b"items", str(items).encode())
        segments = self.segments.copy()
        segments.update(batch.segments)
        for name in batch.segments:
            batch.put(_NUMBER + f"segment {name}".encode(), str(segments[name]).encode())
        self._db.write(batch.written())
        self.users, self.items = users, items
        self.segments = segments
        for mark, changed_items in batch.hidden.items():
            self._hidden[mark] |= {item for item, hidden in changed_items.items() if hidden}
            self._hidden[mark] -= {item for item, hidden in changed_items.items() if not hidden}
        if batch.hidden:
            # A new set, as another thread reads it.
            self.gone = set[str]().union(*self._hidden.values())
        return list(changed)

    def recommendations(self, user: str) -> bytes | None:
        """The user's list as it was sent, None where there is none."""
        return self._db.get(_LIST + user.encode())

    def similar(self, item_id: str) -> bytes | None:
        """What goes with the item, as it was sent."""
        return self._db.get(_SIMILAR + item_id.encode())

    def popular(self, category: str) -> bytes | None:
        """What is popular in the category, as it was sent."""
        return self._db.get(_POPULAR + category.encode())

    def item(self, item_id: str) -> Item | None:
        """The item of the catalogue, None where it is in none, or removed."""
        return self.of_catalogue([item_id])[0]

    def of_catalogue(self, item_ids: list[str]) -> list[Item | None]:
        """Each of the items, None where the catalogue does not hold it."""
        stored = self._db.get([_ITEM + item_id.encode() for item_id in item_ids]) if item_ids else []
        return [None if raw is None else _item.decode(raw) for raw in stored]

    def categories(self, limit: int) -> list[str]:
        """The broadest categories of the catalogue, in the order of their names."""
        found: list[str] = []
        iterator = self._db.iter()
        iterator.seek(_CATEGORY)
        while iterator.valid() and iterator.key().startswith(_CATEGORY) and len(found) < limit:
            name = iterator.key()[len(_CATEGORY) :].split(b"\0")[0]
            found.append(name.decode())
            iterator.seek(_CATEGORY + name + b"\1")
        return found

    def search(self, query: str, category: str | None, limit: int) -> list[str]:
        """Ids of at most `limit` items that hold each word of the query in title or brand, the last as its beginning,
        and that are in the broad category, where one is given. At most eight words are looked for, the last eight,
        among the first 20,000 items that hold the last."""
        needed = [_WORD + word.encode() + b"\0" for word in dict.fromkeys(_words(query)[-_WORDS:])]
        # The last may still be being typed.
        first = needed.pop()[:-1] if needed and not query.endswith(" ") else None
        if category is not None:
            needed.append(_CATEGORY + category.encode() + b"\0")
        if first is None:
            first = needed.pop() if needed else _ITEM
        # An item may stand below several words that begin alike.
        found = dict.fromkeys(key.rsplit(b"\0", 1)[-1] for key in islice(self._below(first), _SEARCHED))
        fitting = (item for item in found if all(self._db.get(prefix + item) is not None for prefix in needed))
        return [item.decode() for item in islice(fitting, limit)]

    def rows(self, topic: str) -> Iterator[bytes]:
        """The messages of one of the tables, in the order of the keys that they are kept by."""
        prefix = _ROW + topic.encode() + b"\0"
        iterator = self._db.iter()
        iterator.seek(prefix)
        while iterator.valid() and iterator.key().startswith(prefix):
            yield iterator.value()
            iterator.next()

    def _below(self, prefix: bytes) -> Iterator[bytes]:
        """What follows the prefix in each key that begins with it, in order."""
        iterator = self._db.iter()
        iterator.seek(prefix)
        while iterator.valid() and (key := iterator.key()).startswith(prefix):
            yield key[len(prefix) :]
            iterator.next()

    def _number(self, name: str, otherwise: float = 0) -> int:
        return int(self._db.get(_NUMBER + name.encode()) or otherwise)

    def _take_list(self, batch: "_Batch", user: str, value: bytes | None) -> bool:
        key, mark = _LIST + user.encode(), _MARK + user.encode()
        held = batch.get(key) is not None
        if value is None:
            batch.users -= held
            batch.delete(key)
            batch.delete(mark)
            return held
        try:
            given = decode_recommendation(value)
        except MessageError:
            return False
        known = batch.get(mark)
        newer = _newest(Mark() if known is None else _mark.decode(known), given)
        if newer is None:
            return False
        batch.users += not held
        batch.put(key, value)
        batch.put(mark, msgspec.msgpack.encode(newer))
        return True

    def _take_whole(
        self, prefix: bytes, decode: Callable[[bytes], object], batch: "_Batch", key: str, value: bytes | None
    ) -> bool:
        if value is None:
            batch.delete(prefix + key.encode())
            return False
        with suppress(MessageError):
            decode(value)
            batch.put(prefix + key.encode(), value)
        return False

    def _take_row(
        self, topic: str, row_of: Callable[[str, bytes], Row], batch: "_Batch", key: str, value: bytes | None
    ) -> bool:
        prefix = _ROW + topic.encode() + b"\0"
        if value is None or value == b"null":
            batch.delete(prefix + key.encode())
            return False
        newest = _NUMBER + f"period {topic}".encode()
        # What cannot be read is as it was, and what is older than what is there stays away.
        with suppress(MessageError, UnicodeDecodeError):
            value.decode()
            row, period = row_of(key, value), int(batch.get(newest) or 0)
            held = batch.get(prefix + row.key.encode()) if row.number else None
            if row.period < period or (held is not None and row_of(key, held).number > row.number):
                return False
            if row.period > period:
                batch.delete_below(prefix, list(self._below(prefix)))
                batch.put(newest, str(row.period).encode())
            batch.put(prefix + row.key.encode(), value)
        return False

    def _take_segment(self, batch: "_Batch", user: str, value: bytes | None) -> bool:
        place = _SEGMENT + user.encode()
        try:
            now = None if value is None else decode_behaviour(value, PersonSegment).segment
        except MessageError:
            return False
        before = batch.get(place)
        if before is not None:
            batch.segments[before.decode()] -= 1
        if now is None:
            batch.delete(place)
        else:
            batch.segments[now] += 1
            batch.put(place, now.encode())
        return False

    def _take_item(self, batch: "_Batch", key: str, value: bytes | None) -> bool:
        try:
            item_id, item = parse_item(key, value)
        except MessageError:
            return False
        place = _ITEM + item_id.encode()
        held = batch.get(place)
        old = set() if held is None else _terms(_item.decode(held))
        new = set() if item is None else _terms(item)
        for term in old - new:
            batch.delete(term)
        for term in new - old:
            batch.put(term, b"")
        batch.items += (item is not None) - (held is not None)
        if item is None:
            batch.delete(place)
        else:
            batch.put(place, encode_item(item))
        self._hide(batch, _GONE, item_id, item is None or not item.available)
        return False

    def _take_forbidden(self, batch: "_Batch", item_id: str, value: bytes | None) -> bool:
        with suppress(MessageError):
            if value is not None:
                decode_forbidden_item(value)
            self._hide(batch, _FORBIDDEN, item_id, value is not None)
        return False

    def _hide(self, batch: "_Batch", mark: bytes, item_id: str, hidden: bool) -> None:
        if hidden == (batch.get(mark + item_id.encode()) is not None):
            return
        if hidden:
            batch.put(mark + item_id.encode(), b"")
        else:
            batch.delete(mark + item_id.encode())
        batch.hidden.setdefault(mark, {})[item_id] = hidden


class _Batch:
    """Writes that are not in the database yet, which reads see."""

    def __init__(self, db: Rdict) -> None:
        self._db, self._writes = db, dict[bytes, bytes | None]()
        self.users = self.items = 0
        # By the mark of why, items that are to be hidden from lists, and those that are to be no more.
        self.hidden = dict[bytes, dict[str, bool]]()
        self.segments = Counter[str]()

    def get(self, key: bytes) -> bytes | None:
        return self._writes[key] if key in self._writes else self._db.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._writes[key] = value

    def delete(self, key: bytes) -> None:
        self._writes[key] = None

    def delete_below(self, prefix: bytes, stored: list[bytes]) -> None:
        """Delete what is kept below the prefix: what is `stored`, and what is not yet."""
        for key in [*(prefix + rest for rest in stored), *(key for key in self._writes if key.startswith(prefix))]:
            self._writes[key] = None

    def written(self) -> WriteBatch:
        batch = WriteBatch(raw_mode=True)
        for key, value in self._writes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        return batch


def _newest(known: Mark, given: Recommendation) -> Mark | None:
    """The mark with the given list, None where one that was taken before is newer."""
    seen = given.last_seen or given.event_timestamp or 0
    if given.strategy == "session":
        return Mark(known.version, seen) if seen >= known.last_seen else None
    if given.profile_version >= known.version:
        return Mark(given.profile_version, max(seen, known.last_seen))
    return Mark(given.profile_version, seen) if seen > known.last_seen + RESTARTED_MS else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _terms(item: Item) -> set[bytes]:
    """The keys under which the item is found."""
    words = _words(f"{item.title or ''} {item.brand or ''}")
    below = b"\0" + item.item_id.encode()
    found = {_WORD + word.encode() + below for word in words}
    if item.category:
        found.add(_CATEGORY + item.category[0].encode() + below)
    return found
