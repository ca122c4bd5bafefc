"""The shop's rules on lists: what must not be there, what must, where, and how much of it.

Lists are filled place by place, best candidate first among those that no rule forbids there, as in the greedy method of
Celis, Straszak, Vishnoi, "Ranking with fairness constraints", ICALP 2018, section 4; a share is kept at every beginning
of the list, as the minimum targets of Zehlike et al., "FA*IR: a fair top-k ranking algorithm", CIKM 2017, section 3.
"""

import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import cel
import msgspec
import numba
import numpy as np
import numpy.typing as npt

from model.batch import Rows, Weights
from model.item_index import ItemIndex
from model.snapshot import Snapshot
from schema.errors import MessageError
from schema.item import Item
from schema.rule import Rule, now_in, parse_rule

Flags = npt.NDArray[np.bool_]
_log = logging.getLogger(__name__)
_PIN, _SHARE, _CAP, _AT_LEAST = range(4)
_KINDS = {"pin": _PIN, "share": _SHARE, "cap": _CAP, "at_least": _AT_LEAST}
_WANTING = frozenset(("pin", "share", "at_least"))
POOL = 24
"""How many items of a rule that wants some on a list are candidates of everybody, or k where lists are longer."""
_TITLE, _GONE = 200, 100_000


class Attributes(msgspec.Struct, array_like=True, omit_defaults=True):
    """What rules may ask of an item."""

    title: str = ""
    category: list[str] = []
    brand: str = ""
    seller: str = ""
    price: float = -1.0
    currency: str = ""
    created_at: int = -1
    attributes: dict[str, str | bool | float] = {}


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Attributes)


def attributes_of(item: Item) -> bytes:
    """What rules may ask of the item, as MessagePack."""
    price, created = item.price, item.created_at
    return _encoder.encode(
        Attributes(
            (item.title or "")[:_TITLE],
            item.category,
            item.brand or "",
            item.seller or "",
            -1.0 if price is None else price,
            item.currency or "",
            -1 if created is None else created,
            item.attributes or {},
        )
    )


def item_of(packed: bytes) -> Item:
    """The item but for its id, as far as `attributes_of` packs it; nothing is known of it where that is empty."""
    known = _decoder.decode(packed) if packed else Attributes()
    price = None if known.price < 0 else known.price
    title, brand, currency = known.title, known.brand, known.currency or None
    return Item("", title=title, category=known.category, brand=brand, price=price, currency=currency)


class People(NamedTuple):
    """The people that lists are made for: what they did last, the segment of each by what they take, -1 where none is
    known, and their arms by the ids of experiments."""

    snapshots: Sequence[Snapshot]
    segments: Sequence[int]
    arms: Sequence[dict[str, str]]


class InForce(NamedTuple):
    """Rules that hold now, in their order of precedence: on which of B lists each holds, bool [R, B], and for which
    items, R times bool [N]."""

    rules: list[Rule]
    lists: Flags
    items: list[Flags]


class Filled(NamedTuple):
    """Lists of k: `places` int64 [B, k], which place of the order each entry comes from, -1 where a list is shorter;
    and which of the rules `touched` it, bool [R, B, k]."""

    places: Rows
    touched: Flags


class Rules:
    """The rules by their ids, in their order of precedence, and what was decided of items; of each item, by its row,
    what rules may ask of it."""

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self._payloads: dict[str, bytes] = {}
        # Items that somebody allowed, or forbade, whatever a rule says.
        self.decisions: dict[str, bool] = {}
        self._index = ItemIndex()
        self._ids: list[str] = []
        self._known: list[bytes] = []
        # Of items that were forgotten, by id.
        self._gone: dict[str, bytes] = {}
        self._matchers: dict[str, Callable[[int], bool]] = {}
        # Of each rule for which of the first so many items it holds.
        self._items: dict[str, Flags] = {}
        self._when: dict[str, Any] = {}
        # By the name of a grouping, the number of each group, and of each item.
        self._groups: dict[str, tuple[dict[str, int], list[int]]] = {}
        # Of each item 1 where somebody allowed it, -1 where somebody forbade it.
        self._said = np.zeros(0, np.int8)
        # What the world was told: items that wait for a decision, with the rules that hold them back; of each item
        # whether it may be on no list; and of those that may not, the ones that were forgotten.
        self._queue: dict[str, list[str]] = {}
        self._told = np.zeros(0, np.bool_)
        self._told_gone: dict[str, None] = {}

    def take(self, rule_id: str, payload: bytes | None) -> None:
        """Take a rule as it was sent, None for nothing. One that an earlier version took and this one would not is left
        out, and said: nobody is there any more whom a dead letter would reach."""
        try:
            self.put(*parse_rule(rule_id, payload))
        except MessageError as error:
            _log.error("The rule %s is left out: %s", rule_id, error)
            self.put(rule_id, None)
            return
        if payload is not None:
            self._payloads[rule_id] = payload

    def put(self, rule_id: str, rule: Rule | None) -> None:
        """Take a rule in the place of what it was before, None for nothing."""
        for table in (self.rules, self._matchers, self._items, self._when, self._payloads):
            table.pop(rule_id, None)
        if rule is not None:
            self.rules[rule_id] = rule
            self.rules = dict(sorted(self.rules.items(), key=lambda entry: (-entry[1].priority, entry[0])))
            self._matchers[rule_id] = self._matcher(rule)
            self._when[rule_id] = cel.compile(rule.when)

    def decide(self, item: str, allowed: bool | None) -> None:
        """Take what was decided of the item, None for nothing any more."""
        self.decisions.pop(item, None)
        if allowed is not None:
            self.decisions[item] = allowed
        row = self._index.row(item)
        if 0 <= row < len(self._said):
            self._said[row] = self._sign(item)

    def resize(self, index: ItemIndex) -> None:
        """Make room for all items of the index."""
        self._index, self._ids = index, index.ids
        if new := index.ids[len(self._known) :]:
            self._known += [self._gone.pop(item, b"") for item in new]
            self._said = np.append(self._said, np.array([self._sign(item) for item in new], np.int8))
            told = [item in self._told_gone for item in new]
            self._told = np.append(self._told, told)
            for item in new if any(told) else ():
                self._told_gone.pop(item, None)

    def follow(self, row: int, packed: bytes) -> None:
        """Take what rules may ask of the item in the row, as `attributes_of` packs it."""
        self._known[row] = packed
        for rule_id, flags in self._items.items():
            if row < len(flags):
                flags[row] = self._matchers[rule_id](row)
        for name, (numbers, of_rows) in self._groups.items():
            if row < len(of_rows):
                of_rows[row] = self._group(name, numbers, row)

    def retain(self, rows: Rows, index: ItemIndex) -> None:
        """Keep only these items, as rows 0, 1, 2, of which `index` holds the ids."""
        kept = set(rows.tolist())
        # What rules may ask of an item that comes back before its catalogue message does.
        gone = {self._ids[n]: packed for n, packed in enumerate(self._known) if packed and n not in kept}
        gone = self._gone | gone
        self._gone = dict(islice(gone.items(), max(0, len(gone) - _GONE), None))
        self._told_gone |= dict.fromkeys(
            self._ids[row] for row in np.flatnonzero(self._told).tolist() if row not in kept
        )
        self._said, self._told = self._said[rows], self._told[rows]
        self._known, self._ids, self._index = [self._known[row] for row in rows.tolist()], index.ids, index
        self._items = {rule_id: flags[rows[rows < len(flags)]] for rule_id, flags in self._items.items()}
        self._groups.clear()

    def in_force(self, now_ms: int, people: People) -> InForce | None:
        """The rules that hold at `now_ms` (epoch milliseconds) for one of the lists asked for; None where none does."""
        if not self.rules:
            return None
        moment = datetime.fromtimestamp(now_ms / 1000, UTC)
        held, lists, items = [], [], []
        for rule_id, rule in self.rules.items():
            if rule.holds_at(moment) and (on := self._lists(rule_id, rule, now_ms, people)).any():
                held.append(rule)
                lists.append(on)
                items.append(self._items_of(rule_id))
        return InForce(held, np.stack(lists), items) if held else None

    def review(self, now_ms: int) -> dict[str, tuple[str, list[str]] | None]:
        """What has changed in the queue of items that wait for a decision, as of `now_ms` (epoch milliseconds): of each
        such item its title and the rules that hold it back; None where it waits no more."""
        moment = datetime.fromtimestamp(now_ms / 1000, UTC)
        asking = [rule_id for rule_id, r in self.rules.items() if r.action == "review" and r.holds_at(moment)]
        queue: dict[str, list[str]] = {}
        rows: dict[str, int] = {}
        for rule_id in asking:
            for row in np.flatnonzero(self._items_of(rule_id)).tolist():
                if (item := self._ids[row]) not in self.decisions:
                    queue.setdefault(item, []).append(rule_id)
                    rows[item] = row
        before, self._queue = self._queue, queue
        changed: dict[str, tuple[str, list[str]] | None] = {
            item: (self._attributes(rows[item]).title, rules)
            for item, rules in queue.items()
            if before.get(item) != rules
        }
        return changed | dict.fromkeys(before.keys() - queue.keys())

    def told(self, queue: dict[str, list[str]], forbidden: Sequence[str]) -> None:
        """Take what the world was told by one before: the queue, and which items may be on no list."""
        self._queue = queue
        self._told[:] = False
        rows = self._index.rows(forbidden)
        self._told[[row for row in rows if row >= 0]] = True
        self._told_gone = dict.fromkeys(item for item, row in zip(forbidden, rows, strict=True) if row < 0)

    @property
    def waiting(self) -> dict[str, list[str]]:
        """The items that the world was told wait for a decision, with the rules that hold them back."""
        return self._queue

    @property
    def nowhere(self) -> Flags:
        """Which items the world was told may be on no list, bool [N]."""
        return self._told

    def newly_forbidden(self, now_ms: int) -> dict[str, bool]:
        """Which items may be on no list any more as of `now_ms` (epoch milliseconds), whoever it is for, and which may
        again (False): what has changed since it was told."""
        moment, now = datetime.fromtimestamp(now_ms / 1000, UTC), self._said < 0
        for rule_id, rule in self.rules.items():
            if rule.action in ("filter", "review") and rule.when == "true" and rule.holds_at(moment):
                now |= self._items_of(rule_id) & ~self._allowed(rule)
        changed = {self._ids[row]: bool(now[row]) for row in np.flatnonzero(now != self._told).tolist()}
        self._told = now
        # Of items that were forgotten long ago nobody has lists any more.
        while len(self._told_gone) > _GONE:
            changed[next(iter(self._told_gone))] = False
            del self._told_gone[next(iter(self._told_gone))]
        return changed

    def forbid(self, held: InForce | None, items: Rows) -> None:
        """Make -1 of those of the candidates `items` int64 [B, C] that may not be on their lists."""
        if self.decisions:
            said = np.where(items >= 0, self._said[items], 0)
            allowed = said > 0
            items[said < 0] = -1
        for rule, lists, of in zip(*held, strict=True) if held else ():
            if rule.action in ("filter", "review"):
                hit = (items >= 0) & of[items] & lists[:, None]
                items[hit & ~allowed if self.decisions and rule.action == "review" else hit] = -1

    def wanted(self, held: InForce, popularity: Weights, blocked: Flags, k: int) -> Rows:
        """Candidates for each list of k, int64 [B, P], each once, -1 for none: the most popular, by `popularity`
        float32 [N], of the items that each rule wants on it; none that is `blocked` bool [N], or filtered for all."""
        pool = max(POOL, k)
        out = blocked.copy()
        for rule, lists, of in zip(*held, strict=True):
            if rule.action in ("filter", "review") and lists.all():
                out |= of & ~self._allowed(rule)
        pools = [np.empty(0, np.int64)]
        for rule, _, of in zip(*held, strict=True):
            if rule.action in _WANTING:
                rows = np.flatnonzero(of & ~out)
                pools.append(rows[np.argsort(-popularity[rows], kind="stable")[:pool]])
        found = np.unique(np.concatenate(pools))
        theirs = np.zeros((held.lists.shape[1], len(found)), np.bool_)
        for rule, lists, of in zip(*held, strict=True):
            if rule.action in _WANTING:
                theirs |= lists[:, None] & of[found]
        return np.where(theirs, found, -1)

    def blocked(self, held: InForce) -> Flags | None:
        """The items that are on no list by rules that hold for all of them, bool [N]; None where there are none."""
        out = None
        for rule, lists, of in zip(*held, strict=True):
            if rule.action in ("filter", "review") and lists.all():
                refused = of & ~self._allowed(rule)
                out = refused if out is None else out | refused
        return out

    def _allowed(self, rule: Rule) -> Flags:
        """The items that somebody allowed, where the rule lets itself be told so: bool [N]."""
        return self._said > 0 if rule.action == "review" else np.zeros(len(self._said), np.bool_)

    def boosted(self, held: InForce, items: Rows, columns: Rows, chances: Weights) -> tuple[Rows, Weights]:
        """The order `columns` int64 [B, C] of the candidates `items` int64 [B, C], best first, -1 at its end, and their
        chances float32 [B, C], as boosts make them."""
        weight = np.zeros(columns.shape, np.float32)
        listed = np.take_along_axis(items, np.maximum(columns, 0), 1)
        for rule, lists, of in zip(*held, strict=True):
            if rule.action == "boost" and rule.amount is not None:
                weight += np.float32(rule.amount * math.log(100)) * (of[listed] & (listed >= 0) & lists[:, None])
        if not weight.any():
            return columns, chances
        found = np.where(columns >= 0, np.maximum(chances, 1e-30) * np.exp(weight), 0)
        found *= chances.sum(1, keepdims=True) / np.maximum(found.sum(1, keepdims=True), 1e-30)
        order = np.argsort(-np.where(columns >= 0, found, -1), axis=1, kind="stable")
        return np.take_along_axis(columns, order, 1), np.take_along_axis(found, order, 1).astype(np.float32)

    def shape(self, held: InForce) -> bool:
        """Whether a rule says what a list is made of, and not only what it is not."""
        return any(rule.action in _KINDS or rule.action == "boost" for rule in held.rules)

    def fill(self, held: InForce, items: Rows, columns: Rows, drawn: Flags, k: int) -> Filled:
        """The lists of k that the rules make of the order `columns` int64 [B, W] of the candidates `items` int64
        [B, C], best first, -1 for none, in which a column may stand more than once. What was `drawn` bool [B, W] by
        chance keeps its place where no rule wants it."""
        listed = np.where(columns >= 0, np.take_along_axis(items, np.maximum(columns, 0), 1), -1)
        kinds = np.array([_KINDS.get(rule.action, -1) for rule in held.rules], np.int64)
        values = np.array([_value(rule, k) for rule in held.rules], np.float64)
        hits = np.stack(
            [of[listed] & (listed >= 0) & on[:, None] for of, on in zip(held.items, held.lists, strict=True)]
        )
        groups = np.full(hits.shape, -1, np.int64)
        for n, rule in enumerate(held.rules):
            if rule.by is not None:
                groups[n] = np.where(hits[n], self.groups(rule.by)[listed], -1)
        places, touched = np.full((len(items), k), -1, np.int64), np.zeros((len(kinds), len(items), k), np.bool_)
        _fill(columns, drawn, hits, groups, held.lists, kinds, values, places, touched)
        for n, rule in enumerate(held.rules):
            if rule.action == "boost":
                touched[n] = np.take_along_axis(hits[n], np.maximum(places, 0), 1) & (places >= 0)
        return Filled(places, touched)

    def groups(self, name: str) -> Rows:
        """Each item's category at its broadest level, brand or seller as a number, int64 [N], -1 where it has none."""
        numbers, of_rows = self._groups.setdefault(name, ({}, []))
        of_rows += [self._group(name, numbers, row) for row in range(len(of_rows), len(self._known))]
        return np.array(of_rows, np.int64)

    @property
    def known(self) -> list[bytes]:
        """What rules may ask of each item, packed."""
        return self._known

    @property
    def forgotten(self) -> dict[str, bytes]:
        """What rules may ask of items that were forgotten, by id, packed: they may come back before their catalogue
        message does."""
        return self._gone

    def remember(self, forgotten: dict[str, bytes]) -> None:
        """Take what `forgotten` was before."""
        self._gone = forgotten

    def packed(self) -> dict[str, bytes]:
        """The rules as they were sent, by their ids."""
        return self._payloads

    def _sign(self, item: str) -> int:
        decided = self.decisions.get(item)
        return 0 if decided is None else 1 if decided else -1

    def _group(self, name: str, numbers: dict[str, int], row: int) -> int:
        found = getattr(self._attributes(row), name)
        group = (found[0] if found else "") if isinstance(found, list) else found
        return numbers.setdefault(group, len(numbers)) if group else -1

    def _attributes(self, row: int) -> Attributes:
        return _decoder.decode(self._known[row]) if self._known[row] else Attributes()

    def _items_of(self, rule_id: str) -> Flags:
        known, matches = self._items.get(rule_id, np.zeros(0, np.bool_)), self._matchers[rule_id]
        if len(known) < len(self._known):
            more = [matches(row) for row in range(len(known), len(self._known))]
            known = self._items[rule_id] = np.concatenate([known, np.array(more, np.bool_)])
        return known

    def _matcher(self, rule: Rule) -> Callable[[int], bool]:
        """Whether the rule holds for the item in a row."""
        named = None if rule.item_ids is None else frozenset(rule.item_ids)
        if rule.items == "true":
            return lambda row: named is None or self._ids[row] in named
        program, context = cel.compile(rule.items), cel.Context()

        def matches(row: int) -> bool:
            if named is not None and self._ids[row] not in named:
                return False
            context.add_variable("item", {"id": self._ids[row], **msgspec.structs.asdict(self._attributes(row))})
            return _holds(program, context)

        return matches

    def _lists(self, rule_id: str, rule: Rule, now_ms: int, people: People) -> Flags:
        if rule.when == "true":
            return np.ones(len(people.snapshots), np.bool_)
        context = cel.Context()
        context.add_variable("now", now_in(rule.timezone, now_ms))
        found = np.zeros(len(people.snapshots), np.bool_)
        for n, (last, segment, arms) in enumerate(zip(*people, strict=True)):
            person = {"id": last.user_id, "segment": segment, "events": last.profile_version, "arms": arms}
            person |= {"behaviour": last.behaviour, "price_sensitive": last.price_sensitive}
            context.add_variable("person", person)
            context.add_variable("event", {"type": last.event_type, "properties": last.properties})
            found[n] = _holds(self._when[rule_id], context)
        return found


def _holds(program: Any, context: Any) -> bool:
    """Whether the expression is true. One that fails, as it asks for an attribute that the item lacks, is not."""
    try:
        return program.execute(context) is True
    except Exception:
        return False


def _value(rule: Rule, k: int) -> float:
    """The one number of a rule on lists of k."""
    if rule.action == "share":
        return (rule.share or 0.0) * k
    number = {"pin": rule.position, "cap": rule.at_most, "at_least": rule.at_least}.get(rule.action)
    return float(number or 0)


@numba.njit(
    "(i8[:,:], b1[:,:], b1[:,:,:], i8[:,:,:], b1[:,:], i8[::1], f8[::1], i8[:,:], b1[:,:,:])", cache=True, nogil=True
)
def _fill(columns, drawn, hits, groups, lists, kinds, values, places, touched):  # type: ignore[no-untyped-def]
    rows, width = columns.shape
    rules, k = len(kinds), places.shape[1]
    taken, pinned, pinned_by = np.empty(width, np.bool_), np.empty(k, np.int64), np.empty(k, np.int64)
    # How many of each rule's items are on the list, those that are pinned further down included.
    placed, ahead = np.empty(rules, np.int64), np.empty(rules, np.int64)
    for row in range(rows):
        # A candidate that stands a second time in the order is none there.
        for w in range(width):
            taken[w] = columns[row, w] < 0
            for before in range(w):
                taken[w] |= columns[row, before] == columns[row, w]
        placed[:], ahead[:], pinned[:], free = 0, 0, -1, k
        for r in range(rules):
            place = int(values[r]) - 1
            if kinds[r] == _PIN and lists[r, row] and place < k and pinned[place] < 0:
                for w in range(width):
                    if hits[r, row, w] and not taken[w]:
                        pinned[place], pinned_by[place], taken[w] = w, r, True
                        free -= 1
                        for other in range(rules):
                            ahead[other] += hits[other, row, w]
                        break
        filled = 0
        for place in range(k):
            chosen = pinned[place]
            if chosen < 0:
                wants, chosen = -1, -1
                for r in range(rules):
                    if wants < 0 and lists[r, row]:
                        hungry = False
                        if kinds[r] == _SHARE and placed[r] < math.floor(values[r] * (place + 1) / k + 1e-9):
                            hungry = True
                        if kinds[r] == _AT_LEAST and values[r] - placed[r] - ahead[r] >= free:
                            hungry = True
                        # One that nothing is left for is not to keep others from what they want.
                        for w in range(width if hungry else 0):
                            if hits[r, row, w] and not taken[w]:
                                wants = r
                                break
                # What a rule wants first, then what chance drew, then the best.
                for attempt in range(3):
                    if chosen >= 0 or (attempt == 0 and wants < 0):
                        continue
                    for w in range(width):
                        if taken[w] or (attempt == 0 and not hits[wants, row, w]) or (attempt == 1 and w != place):
                            continue
                        if attempt == 1 and not drawn[row, w]:
                            continue
                        if attempt == 2 and drawn[row, w] and w > place:
                            continue
                        allowed = True
                        for r in range(rules):
                            if not hits[r, row, w]:
                                continue
                            if kinds[r] == _SHARE and placed[r] + ahead[r] + 1 > math.ceil(values[r] - 1e-9):
                                allowed = False
                            if kinds[r] == _CAP and groups[r, row, w] >= 0:
                                alike = 0
                                for before in range(filled):
                                    alike += groups[r, row, places[row, before]] == groups[r, row, w]
                                for after in range(place, k):
                                    alike += pinned[after] >= 0 and groups[r, row, pinned[after]] == groups[r, row, w]
                                allowed &= alike < values[r]
                        if allowed:
                            chosen = w
                            break
                    if attempt == 0 and chosen >= 0:
                        touched[wants, row, filled] = True
                free -= 1
            else:
                touched[pinned_by[place], row, filled] = True
                for r in range(rules):
                    ahead[r] -= hits[r, row, chosen]
            if chosen < 0:
                continue
            taken[chosen] = True
            places[row, filled] = chosen
            filled += 1
            for r in range(rules):
                placed[r] += hits[r, row, chosen]
