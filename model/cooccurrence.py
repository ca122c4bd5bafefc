"""Item-to-item co-occurrence with recency decay, kept up to date with every interaction.

Source: Huang et al., "TencentRec: Real-time Stream Recommendation in Practice", SIGMOD 2015, sections 4.1 (incremental
item-based collaborative filtering) and 4.1.4 (pruning to the strongest neighbours).
"""

from dataclasses import dataclass

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import torch

from model import devices
from model.arrays import (
    closed_up,
    grown,
    largest_of,
    moved,
    pack_array,
    put_among_best,
    unpack_array,
    unpack_tensor,
    used_slots,
    values_at,
)
from model.batch import Batch, Rows, Weights
from model.candidates import Neighbourhoods

_BLOCK = 8192
"""Rows taken at once where all are moved."""


@dataclass(frozen=True)
class CooccurrenceOptions:
    """`neighbours` bounds a row. The n-th newest item of a history counts (1+n)^-`pair_decay` when a pair is learned,
    (1+n)^-`query_decay` when a list is made. What comes after what is a pair of its own, in which the n-th newest item
    counts (1+n)^-1; of it the `next_history` newest are asked, with (1+n)^-`next_decay`. `source_power` and
    `target_power` divide by item counts to that power."""

    neighbours: int = 384
    history: int = 50
    query_history: int = 50
    pair_decay: float = 0.5
    query_decay: float = 1.0
    next_history: int = 10
    next_decay: float = 0.5
    source_power: float = 0.4
    target_power: float = 0.5


class CooccurrenceDelta(msgspec.Struct, array_like=True):
    """The slots and item counts that changed, as packed arrays: slot int64, neighbour int32, weight and forward weight
    float32; item int64, count float32."""

    slots: bytes
    neighbours: bytes
    weights: bytes
    forward: bytes
    items: bytes
    counts: bytes


class Cooccurrence:
    """Symmetric decayed pair counts in rows of bounded length.

    `neighbours` int32 [N, M] and `weights` float32 [N, M] hold item i's neighbours in row i, -1 where a slot is free;
    `forward` float32 [N, M] counts of each pair those in which the neighbour came after item i;
    `counts` float32 [N] how often each item was interacted with.
    """

    name = "cooccurrence"

    def __init__(self, options: CooccurrenceOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.neighbours = torch.empty(0, options.neighbours, dtype=torch.int32, device=device)
        self.weights = torch.empty(0, options.neighbours, device=device)
        self.forward = torch.empty(0, options.neighbours, device=device)
        self.counts = torch.empty(0, device=device)
        self._source_damping = torch.empty(0, device=device)
        self._target_damping = torch.empty(0, device=device)
        ranks = np.arange(options.query_history, dtype=np.float32)
        self._query_weights = (1 + ranks) ** np.float32(-options.query_decay)
        self._next_weights = (1 + np.arange(options.next_history, dtype=np.float32)) ** np.float32(-options.next_decay)
        self._pair_weights = (1 + np.arange(options.history, dtype=np.float32)) ** np.float32(-options.pair_decay)
        self._sums = devices.SumTable(device)
        # How many neighbours each row has; they fill it from the left. On the learner only.
        self._used = np.zeros(0, np.int64)
        # Slots and items that changed since the last delta.
        self._changed: list[tuple[Rows, Rows]] = []
        self._bind()

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self.neighbours = grown(self.neighbours, items, -1)
        self.weights = grown(self.weights, items, 0)
        self.forward = grown(self.forward, items, 0)
        self.counts = grown(self.counts, items, 0)
        self._source_damping = grown(self._source_damping, items, 1)
        self._target_damping = grown(self._target_damping, items, 1)
        self._used = np.append(self._used, np.zeros(items - len(self._used), np.int64))
        self._bind()

    def _bind(self) -> None:
        """Name the CPU's tensors as arrays, once: doing so for each event would cost as much as the kernels."""
        if self.device.type == "cpu":
            self._tables = (self.neighbours.numpy(), self.weights.numpy())
            self._forward = self.forward.numpy()
            self._damping = (self._source_damping.numpy(), self._target_damping.numpy())
            self._counts = self.counts.numpy()

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        places, kept = moved(rows, len(self.counts)), torch.from_numpy(rows).to(self.device)
        self.neighbours, self.weights, self.forward = self.neighbours[kept], self.weights[kept], self.forward[kept]
        for first in range(0, len(rows), _BLOCK):
            part = slice(first, first + _BLOCK)
            tables = (table[part].cpu().numpy() for table in (self.weights, self.forward))
            neighbours, (weights, forward) = closed_up(places[self.neighbours[part].cpu().numpy()], *tables)
            self.neighbours[part] = torch.from_numpy(neighbours.astype(np.int32)).to(self.device)
            self.weights[part] = torch.from_numpy(weights).to(self.device)
            self.forward[part] = torch.from_numpy(forward).to(self.device)
        self._used = (self.neighbours >= 0).sum(dim=1).cpu().numpy()
        self.counts = self.counts[kept]
        self._source_damping, self._target_damping = self._source_damping[kept], self._target_damping[kept]
        self._bind()

    def _count(self, items: torch.Tensor, counts: torch.Tensor) -> None:
        self.counts[items] = counts
        self._source_damping[items] = counts.clamp(min=1) ** -self.options.source_power
        self._target_damping[items] = counts.clamp(min=1) ** -self.options.target_power

    def learn(self, batch: Batch) -> None:
        """Count each new interaction against the items before it in the same history, on the CPU, one by one: how the
        stream is cut into batches changes nothing."""
        options = self.options
        powers = (options.source_power, options.target_power)
        state = (*self._tables, self._forward, self._used, self._counts, self._damping)
        self._changed.append(_count_pairs(batch.items, batch.event_index, self._pair_weights, powers, *state))

    def replace(self, counts: Weights, pairs: Weights) -> None:
        """Take statistics that were made elsewhere in the place of what was learned: counts float32 [N], symmetric pair
        sums float32 [N, N]. The largest sums above 0 of each row become its neighbours."""
        width, size = self.options.neighbours, len(counts)
        neighbours, weights, forward = (*self._tables, self._forward)
        neighbours[:size], weights[:size], forward[:size] = -1, 0, 0
        for row in range(size):
            strongest = largest_of(pairs[row], width)
            neighbours[row, : len(strongest)] = strongest
            weights[row, : len(strongest)] = pairs[row, strongest]
            self._used[row] = len(strongest)
        items = np.arange(size)
        self._count(torch.from_numpy(items), torch.from_numpy(counts))
        self._changed.append((np.arange(size * width), items))

    def delta(self) -> CooccurrenceDelta:
        """What was learned since the last call."""
        none = np.empty(0, np.int64)
        slots, items = map(np.concatenate, zip(*self._changed or [(none, none)], strict=True))
        self._changed.clear()
        tables = (table.reshape(-1)[slots] for table in (*self._tables, self._forward))
        return CooccurrenceDelta(*map(pack_array, (slots, *tables, items, self._counts[items])))

    def paired(self) -> Rows:
        """The rows of items that others go with, ascending. On the learner."""
        return np.flatnonzero(self._used)

    def grown(self, delta: CooccurrenceDelta) -> Rows:
        """The rows whose counts the delta has brought over a power of 1.5, ascending: a few dozen times in an item's
        life, often while it is new."""
        rows, times = np.unique(unpack_array(delta.items, np.int64), return_counts=True)
        after = self._counts[rows]
        before, after = (np.floor(np.log(np.maximum(n, 0.5)) / np.log(1.5)) for n in (after - times, after))
        return rows[after > before]

    def apply(self, delta: CooccurrenceDelta) -> None:
        """Follow the learner: write the changed slots and counts."""
        slots = unpack_tensor(delta.slots, np.int64, self.device)
        self.neighbours.view(-1)[slots] = unpack_tensor(delta.neighbours, np.int32, self.device)
        self.weights.view(-1)[slots] = unpack_tensor(delta.weights, np.float32, self.device)
        self.forward.view(-1)[slots] = unpack_tensor(delta.forward, np.float32, self.device)
        items = unpack_tensor(delta.items, np.int64, self.device)
        self._count(items, unpack_tensor(delta.counts, np.float32, self.device))

    def score(self, items: Rows, weights: Weights, out: devices.Table) -> None:
        """Writes scores float32 [B, N] to `out`, for histories `items` int64 [B, H] (-1 for none) with `weights`
        float32 [B, H]."""
        if isinstance(out, np.ndarray):
            _add_neighbours(items, weights, self._query_weights, *self._damping, *self._tables, out)
        else:
            self._add_neighbours(items, weights, out)

    def neighbourhoods(self, items: Rows, weights: Weights) -> Neighbourhoods:
        """The scores of `score` that are above 0, on the CPU."""
        return Neighbourhoods(*_neighbourhoods(items, weights, self._query_weights, *self._damping, *self._tables))

    def score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """Scores float32 [4, B, C] of `candidates` int64 [B, C] (-1 for none): what goes with the whole history, each
        item counting alike; what comes after its newest items; what comes after the newest of all; and what comes
        before the newest items."""
        if devices.read_by_numba(self.device):
            tables = (self._damping, *self._tables, self._forward)
            return _add_to_candidates(items, weights, candidates, self._next_weights, *tables)
        return self._score_candidates(items, weights, candidates)

    def _score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """The torch version of `_add_to_candidates`, for a GPU."""
        sources, asked = (torch.from_numpy(rows).to(self.device) for rows in (items, candidates))
        known, of = sources.clamp(min=0), asked.clamp(min=0)
        query = torch.from_numpy(weights).to(self.device) * self._source_damping[known]
        newest = known[:, : len(self._next_weights)]
        next_weights = torch.from_numpy(self._next_weights[: newest.shape[1]]).to(self.device)
        recent = query[:, : newest.shape[1]] * next_weights
        neighbours, size = self.neighbours[of].clamp_(min=0).long().flatten(1), len(self.counts)
        # A pair stands in both rows: that of the candidate is as good as those of the whole history.
        whole, before = (
            (self._sums.read(size, rows, values, neighbours).view(*of.shape, -1) * table[of]).sum(2)
            for rows, values, table in ((known, query, self.weights), (newest, recent, self.forward))
        )
        following = self.neighbours[newest].clamp_(min=0).long()
        said = self.forward[newest] * recent[..., None]
        after, after_last = (
            self._sums.read(size, following[:, :count].flatten(1), said[:, :count].flatten(1), of)
            for count in (newest.shape[1], 1)
        )
        scores = torch.stack([whole, after, after_last, before]) * self._target_damping[of]
        return scores.where(asked >= 0, 0).cpu().numpy()

    def led_by(self, items: Rows, weights: Weights, listed: Rows) -> Rows:
        """Which item of each history int64 [B, H] gives most for each of the `listed` int64 [B, K]: its column int64
        [B, K], -1 where none gives anything, and for -1."""
        if devices.read_by_numba(self.device):
            return _leading(items, weights, listed, self._query_weights, self._damping[0], *self._tables)
        return self._led_by(items, weights, listed)

    def _led_by(self, items: Rows, weights: Weights, listed: Rows) -> Rows:
        """The torch version of `_leading`, for a GPU."""
        length = min(items.shape[1], len(self._query_weights))
        sources, asked = (torch.from_numpy(rows).to(self.device) for rows in (items[:, :length], listed))
        faded = torch.from_numpy(weights[:, :length] * self._query_weights[:length]).to(self.device)
        known, of = sources.clamp(min=0), asked.clamp(min=0)
        neighbours = self.neighbours[of].clamp_(min=0).long()
        strength = faded * self._source_damping[known]
        given = self._sums.read(len(self.counts), known, strength, neighbours.flatten(1)).view(neighbours.shape)
        given *= self.weights[of]
        most, slots = given.max(2)
        leading = neighbours.gather(2, slots[..., None]).squeeze(2)
        columns = (leading[..., None] == sources[:, None, :]).int().argmax(2)
        return columns.where((most > 0) & (asked >= 0), -1).cpu().numpy()

    def similar(self, rows: Rows, allowed: npt.NDArray[np.bool_], k: int) -> tuple[Rows, Weights]:
        """At most k `allowed` items (bool [N]) that go with each of those in `rows` int64 [R], best first, of equals
        that which was met first: their rows int64 [R, k], -1 where there are no more, and scores float32 [R, k]. On the
        CPU."""
        return _most_similar(rows, allowed, k, *self._damping, *self._tables)

    def counts_of(self, items: Rows) -> Weights:
        """How often each of `items` int64 [B, C] was interacted with: float32 [B, C], 0 for -1."""
        if devices.read_by_numba(self.device):
            return values_at(self._counts, items, 1)
        asked = torch.from_numpy(items).to(self.device)
        return self.counts[asked.clamp(min=0)].where(asked >= 0, 0).cpu().numpy()

    def _add_neighbours(self, items: Rows, weights: Weights, out: torch.Tensor) -> None:
        """The torch version of `_add_neighbours`, for a GPU."""
        length = min(items.shape[1], len(self._query_weights))
        faded = torch.from_numpy(weights[:, :length] * self._query_weights[:length]).to(out.device)
        sources = torch.from_numpy(items[:, :length]).clamp(min=0).to(out.device)
        damped = faded * self._source_damping[sources]
        rows = torch.arange(len(items), device=out.device, dtype=torch.int32)[:, None, None] * out.shape[1]
        # Free slots weigh nothing, so they may all fall on item 0.
        neighbours = self.neighbours[sources].clamp_(min=0)
        values = self.weights[sources].mul_(damped[..., None]).mul_(self._target_damping[neighbours])
        out.zero_().view(-1).index_add_(0, neighbours.add_(rows).view(-1), values.view(-1))

    def snapshot(self) -> dict[str, bytes]:
        """The parameters as packed arrays: of each row how many slots are used, and those."""
        neighbours, weights, forward = (t.cpu().numpy() for t in (self.neighbours, self.weights, self.forward))
        used = neighbours >= 0
        return {
            "used": pack_array(used.sum(axis=1)),
            "neighbours": pack_array(neighbours[used]),
            "weights": pack_array(weights[used]),
            "forward": pack_array(forward[used]),
            "counts": pack_array(self.counts.cpu().numpy()),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`, for every form that was ever written: at first free slots stood in it too, and
        `forward` did not."""
        counts = unpack_tensor(arrays["counts"], np.float32, self.device)
        self.resize(len(counts))
        neighbours = unpack_array(arrays["neighbours"], np.int32)
        if "used" in arrays:
            self._used = unpack_array(arrays["used"], np.int64)
        else:
            self._used = (neighbours.reshape(len(counts), self.options.neighbours) >= 0).sum(axis=1)
        used = np.arange(self.options.neighbours) < self._used[:, None]
        slots = torch.from_numpy(used).to(self.device)
        self.neighbours[slots] = torch.from_numpy(neighbours[neighbours >= 0]).to(self.device)
        for table, name in ((self.weights, "weights"), (self.forward, "forward")):
            if name in arrays:
                values = unpack_array(arrays[name], np.float32)[neighbours >= 0]
                table[slots] = torch.from_numpy(values).to(self.device)
        self._count(torch.arange(len(counts), device=self.device), counts)
        self._bind()


@numba.njit("(i4[::1], f4[::1], f4[::1])", cache=True)
def _prune(neighbours, weights, forward):  # type: ignore[no-untyped-def]
    """Drop the weakest quarter of a full row, the rest stay in their order."""
    width = len(weights)
    weakest = np.argsort(weights, kind="mergesort")[: width // 4]
    kept = np.ones(width, np.bool_)
    kept[weakest] = False
    size = 0
    for slot in range(width):
        if kept[slot]:
            neighbours[size], weights[size], forward[size] = neighbours[slot], weights[slot], forward[slot]
            size += 1
    neighbours[size:] = -1
    weights[size:] = 0
    forward[size:] = 0


@numba.njit("i8(i4[::1], i8, i4)", cache=True)
def _find(neighbours, size, neighbour):  # type: ignore[no-untyped-def]
    """The slot that holds the neighbour, or `size`. Without a way out, the loop takes several slots at a time."""
    found = np.int32(-1)
    for slot in range(size):
        found = max(found, np.int32(slot) if neighbours[slot] == neighbour else np.int32(-1))
    return size if found < 0 else np.int64(found)


@numba.njit(
    "UniTuple(i8[::1], 2)(i8[:,:], i8[::1], f4[::1], UniTuple(f8, 2), "
    "i4[:,::1], f4[:,::1], f4[:,::1], i8[::1], f4[::1], UniTuple(f4[::1], 2))",
    cache=True,
)
def _count_pairs(histories, at, pair_weights, powers, neighbours, weights, forward, used, counts, damping):  # type: ignore[no-untyped-def]
    """Count the item at `at` of each history, and its pairs with the older ones both ways. Returns the slots and the
    items that changed, some of them twice."""
    width = neighbours.shape[1]
    changed = np.empty(4 * histories.size + 2 * width, np.int64)
    items = np.empty(len(histories), np.int64)
    size = taught = 0
    for n in range(len(histories)):
        if at[n] < 0:
            continue
        target = items[taught] = histories[n, at[n]]
        taught += 1
        counts[target] += 1
        damping[0][target] = counts[target] ** -powers[0]
        damping[1][target] = counts[target] ** -powers[1]
        for column in range(at[n] + 1, min(histories.shape[1], at[n] + 1 + len(pair_weights))):
            source = histories[n, column]
            if source < 0:
                break
            weight = pair_weights[column - at[n] - 1]
            for row, neighbour in ((source, target), (target, source)):
                if size + width + 1 > len(changed):
                    changed = np.append(changed, np.empty(len(changed) + width, np.int64))
                slot = _find(neighbours[row], used[row], neighbour)
                if slot == width:
                    _prune(neighbours[row], weights[row], forward[row])
                    slot = used[row] = width - width // 4
                    changed[size : size + width] = row * width + np.arange(width)
                    size += width
                if slot == used[row]:
                    neighbours[row, slot] = neighbour
                    used[row] += 1
                weights[row, slot] += weight
                if row == source:
                    forward[row, slot] += np.float32(1 / (column - at[n]))
                changed[size] = row * width + slot
                size += 1
    return changed[:size], items[:taught]


@numba.njit("(i8[:,:], f4[:,:], f4[::1], f4[::1], f4[::1], i4[:,::1], f4[:,::1], f4[:,::1])", cache=True, nogil=True)
def _add_neighbours(items, confidence, query_weights, source_damping, target_damping, neighbours, weights, out):  # type: ignore[no-untyped-def]
    """Each row of `out` becomes the sum of its items' neighbours, weighted and damped; a free slot ends a row."""
    for n in range(items.shape[0]):
        out[n] = 0
        for column in range(min(items.shape[1], len(query_weights))):
            source = items[n, column]
            if source >= 0:
                weight = confidence[n, column] * query_weights[column] * source_damping[source]
                for slot in range(neighbours.shape[1]):
                    if neighbours[source, slot] < 0:
                        break
                    neighbour = neighbours[source, slot]
                    out[n, neighbour] += weight * weights[source, slot] * target_damping[neighbour]


@numba.njit(
    "Tuple((i8[::1], i8[::1], f4[::1]))(i8[:,:], f4[:,:], f4[::1], f4[::1], f4[::1], i4[:,::1], f4[:,::1])",
    cache=True,
    nogil=True,
)
def _neighbourhoods(items, confidence, query_weights, source_damping, target_damping, neighbours, weights):  # type: ignore[no-untyped-def]
    """The sums of `_add_neighbours`, those above 0 alone."""
    length, width = min(items.shape[1], len(query_weights)), neighbours.shape[1]
    bounds, size = np.zeros(len(items) + 1, np.int64), 0
    found, scores = np.empty(length * width, np.int64), np.empty(length * width, np.float32)
    sums = np.zeros(len(neighbours), np.float32)
    for n in range(len(items)):
        if size + length * width > len(found):
            found = np.append(found, np.empty(len(found) + length * width, np.int64))
            scores = np.append(scores, np.empty(len(scores) + length * width, np.float32))
        for column in range(length):
            source = items[n, column]
            if source >= 0 and confidence[n, column] > 0:
                weight = confidence[n, column] * query_weights[column] * source_damping[source]
                for slot in range(width):
                    neighbour = neighbours[source, slot]
                    if neighbour < 0:
                        break
                    if sums[neighbour] == 0:
                        found[size] = neighbour
                        size += 1
                    sums[neighbour] += weight * weights[source, slot] * target_damping[neighbour]
        for place in range(bounds[n], size):
            scores[place] = sums[found[place]]
            sums[found[place]] = 0
        bounds[n + 1] = size
    return bounds, found[:size], scores[:size]


@numba.njit("UniTuple(f4, 2)(f4[::1], f4[::1], i4[::1], f4[::1], f4[::1])", cache=True, nogil=True, fastmath=True)
def _sums_of(query, recent, neighbours, weights, forward):  # type: ignore[no-untyped-def]
    """The sums over a row of the query by weights, and of its recent part by forward weights."""
    whole = before = np.float32(0)
    for slot in range(used_slots(neighbours)):
        whole += query[np.uint32(neighbours[slot])] * weights[slot]
        before += recent[np.uint32(neighbours[slot])] * forward[slot]
    return whole, before


@numba.njit(
    "f4[:,:,::1](i8[:,:], f4[:,:], i8[:,:], f4[::1], UniTuple(f4[::1], 2), i4[:,::1], f4[:,::1], f4[:,::1])",
    cache=True,
    nogil=True,
)
def _add_to_candidates(items, confidence, candidates, next_weights, damping, neighbours, weights, forward):  # type: ignore[no-untyped-def]
    """The four scores of `score_candidates`: sums as in `_add_neighbours`, of a few items a row."""
    source_damping, target_damping = damping
    scores = np.zeros((4, *candidates.shape), np.float32)
    # Where each item stands among the row's candidates; one place more takes what is none.
    none = candidates.shape[1]
    place = np.full(len(neighbours), none, np.int32)
    found = np.empty((2, none + 1), np.float32)
    query, recent = np.zeros(len(neighbours), np.float32), np.zeros(len(neighbours), np.float32)
    for n in range(items.shape[0]):
        for column in range(items.shape[1]):
            item = items[n, column]
            if item >= 0:
                query[item] = confidence[n, column] * source_damping[item]
                if column < len(next_weights):
                    recent[item] = query[item] * next_weights[column]
        for c in range(none):
            candidate = candidates[n, c]
            if candidate >= 0:
                place[candidate] = c
                # A pair stands in both rows: that of the candidate is as good as those of the whole history.
                tables = neighbours[candidate], weights[candidate], forward[candidate]
                whole, before = _sums_of(query, recent, *tables)
                scores[0, n, c] = whole * target_damping[candidate]
                scores[3, n, c] = before * target_damping[candidate]
        found[:] = 0
        for column in range(min(items.shape[1], len(next_weights))):
            source = items[n, column]
            if source >= 0:
                for slot in range(neighbours.shape[1]):
                    if neighbours[source, slot] < 0:
                        break
                    at = place[neighbours[source, slot]]
                    found[0, at] += recent[source] * forward[source, slot]
                    if column == 0:
                        found[1, at] += recent[source] * forward[source, slot]
        for c in range(none):
            if candidates[n, c] >= 0:
                for score in range(2):
                    scores[1 + score, n, c] = found[score, c] * target_damping[candidates[n, c]]
                place[candidates[n, c]] = none
        for column in range(items.shape[1]):
            if items[n, column] >= 0:
                query[items[n, column]] = recent[items[n, column]] = 0
    return scores


@numba.njit("Tuple((i8[:,::1], f4[:,::1]))(i8[::1], b1[::1], i8, f4[::1], f4[::1], i4[:,::1], f4[:,::1])", cache=True)
def _most_similar(rows, allowed, k, source_damping, target_damping, neighbours, weights):  # type: ignore[no-untyped-def]
    found, scores = np.full((len(rows), k), -1, np.int64), np.zeros((len(rows), k), np.float32)
    for n in range(len(rows) if k else 0):
        row, count = rows[n], 0
        for slot in range(neighbours.shape[1]):
            neighbour = neighbours[row, slot]
            if neighbour < 0:
                break
            score = weights[row, slot] * source_damping[row] * target_damping[neighbour]
            if score <= scores[n, k - 1] or not allowed[neighbour]:
                continue
            count = put_among_best(found[n], scores[n], count, neighbour, score)
    return found, scores


@numba.njit("i8[:,::1](i8[:,:], f4[:,:], i8[:,:], f4[::1], f4[::1], i4[:,::1], f4[:,::1])", cache=True, nogil=True)
def _leading(items, confidence, listed, query_weights, source_damping, neighbours, weights):  # type: ignore[no-untyped-def]
    """The columns of `led_by`: a pair stands in the rows of both items."""
    columns = np.full(listed.shape, -1, np.int64)
    strength, column_of = np.zeros(len(neighbours), np.float32), np.zeros(len(neighbours), np.int64)
    for n in range(items.shape[0]):
        length = min(items.shape[1], len(query_weights))
        for column in range(length):
            item = items[n, column]
            if item >= 0:
                strength[item] = confidence[n, column] * query_weights[column] * source_damping[item]
                column_of[item] = column
        for k in range(listed.shape[1]):
            row, most = listed[n, k], np.float32(0)
            if row >= 0:
                for slot in range(neighbours.shape[1]):
                    neighbour = neighbours[row, slot]
                    if neighbour < 0:
                        break
                    given = strength[neighbour] * weights[row, slot]
                    if given > most:
                        most, columns[n, k] = given, column_of[neighbour]
        for column in range(length):
            if items[n, column] >= 0:
                strength[items[n, column]] = 0
    return columns
