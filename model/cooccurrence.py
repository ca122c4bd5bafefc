"""Item-to-item co-occurrence with recency decay, kept up to date with every interaction.

Source: Huang et al., "TencentRec: Real-time Stream Recommendation in Practice", SIGMOD 2015, sections 4.1 (incremental
item-based collaborative filtering) and 4.1.4 (pruning to the strongest neighbours).
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch

from model.arrays import grown, pack_array, unpack_tensor
from model.batch import Batch, Rows


@dataclass(frozen=True)
class CooccurrenceOptions:
    """`neighbours` bounds a row. The n-th newest item of a history counts (1+n)^-`pair_decay` when a pair is learned,
    (1+n)^-`query_decay` when a list is made; `source_power` and `target_power` divide by item counts to that power."""

    neighbours: int = 512
    history: int = 50
    query_history: int = 50
    pair_decay: float = 0.5
    query_decay: float = 1.0
    source_power: float = 0.4
    target_power: float = 0.5


class CooccurrenceDelta(msgspec.Struct, array_like=True):
    """The slots and item counts that changed, as packed arrays: slot int64, neighbour int32, weight float32; item
    int64, count float32."""

    slots: bytes
    neighbours: bytes
    weights: bytes
    items: bytes
    counts: bytes


class Cooccurrence:
    """Symmetric decayed pair counts in rows of bounded length.

    `neighbours` int32 [N, M] and `weights` float32 [N, M] hold item i's neighbours in row i, -1 where a slot is free;
    `counts` float32 [N] how often each item was interacted with.
    """

    name = "cooccurrence"

    def __init__(self, options: CooccurrenceOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.neighbours = torch.empty(0, options.neighbours, dtype=torch.int32, device=device)
        self.weights = torch.empty(0, options.neighbours, device=device)
        self.counts = torch.empty(0, device=device)
        ranks = torch.arange(1024, dtype=torch.float32, device=device)
        self._query_weights = (1 + ranks) ** -options.query_decay
        self._pair_weights = ((1 + ranks) ** -options.pair_decay).cpu().numpy()

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self.neighbours = grown(self.neighbours, items, -1)
        self.weights = grown(self.weights, items, 0)
        self.counts = grown(self.counts, items, 0)

    def learn(self, batch: Batch) -> CooccurrenceDelta:
        """Count each new interaction against the items before it in the same history, on the CPU.

        Sums of pairs do not depend on how the stream is cut into batches, up to rounding and to which weak neighbours a
        full row gives up.
        """
        taught = np.flatnonzero(batch.event_index >= 0)
        at = batch.event_index[taught]
        targets = batch.items[taught, at]
        counts = self.counts.numpy()
        np.add.at(counts, targets, 1.0)
        sources, targets_of, weights = self._pairs(batch.items[taught], at, targets)
        slots = self._add(
            np.concatenate([sources, targets_of]), np.concatenate([targets_of, sources]), np.concatenate([weights] * 2)
        )
        items = np.unique(targets)
        return CooccurrenceDelta(
            pack_array(slots),
            pack_array(self.neighbours.numpy().reshape(-1)[slots]),
            pack_array(self.weights.numpy().reshape(-1)[slots]),
            pack_array(items),
            pack_array(counts[items]),
        )

    def _pairs(self, items: Rows, at: Rows, targets: Rows) -> tuple[Rows, Rows, Any]:
        """The pairs (older item, new item, weight) of each row; the distance is counted from the new item."""
        columns = np.arange(items.shape[1])[None, :]
        distance = columns - at[:, None] - 1
        valid = (items >= 0) & (distance >= 0) & (distance < self.options.history)
        rows, cols = np.nonzero(valid)
        return items[rows, cols], targets[rows], self._pair_weights[distance[rows, cols]]

    def _add(self, rows: Rows, cols: Rows, weights: Any) -> Rows:
        """Add the weights to the pairs and return the slots that changed, ascending."""
        if not len(rows):
            return np.empty(0, np.int64)
        keys, inverse = np.unique((rows << 32) | cols, return_inverse=True)
        sums = np.bincount(inverse, weights, len(keys)).astype(np.float32)
        rows, cols = keys >> 32, keys & 0xFFFFFFFF
        table, values = self.neighbours.numpy(), self.weights.numpy()
        width = table.shape[1]
        found = table[rows] == cols[:, None].astype(np.int32)
        known = found.any(axis=1)
        slots = rows * width + found.argmax(axis=1)
        values.reshape(-1)[slots[known]] += sums[known]
        changed = [slots[known]]
        new = np.flatnonzero(~known)
        if len(new):
            changed.append(self._insert_new(rows[new], cols[new], sums[new]))
        return np.unique(np.concatenate(changed))

    def _insert_new(self, rows: Rows, cols: Rows, sums: Any) -> Rows:
        """Put pairs of sorted `rows` that the table lacks into free slots: all rows with room at once."""
        table, values = self.neighbours.numpy(), self.weights.numpy()
        width = table.shape[1]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        sizes = np.diff(np.append(first, len(rows)))
        # Rows fill from the left without gaps, so the number of neighbours is the first free slot.
        used = (table[rows[first]] >= 0).sum(axis=1)
        fits = used + sizes <= width
        pairs = np.repeat(fits, sizes)
        rank = np.arange(len(rows)) - np.repeat(first, sizes)
        slots = (rows * width + np.repeat(used, sizes) + rank)[pairs]
        table.reshape(-1)[slots] = cols[pairs]
        values.reshape(-1)[slots] = sums[pairs]
        changed = [slots]
        for start, size in zip(first[~fits], sizes[~fits], strict=True):
            members = slice(start, start + size)
            changed.append(self._insert(int(rows[start]), cols[members], sums[members]))
        return np.concatenate(changed)

    def _insert(self, row: int, cols: Rows, sums: Any) -> Rows:
        """Put new neighbours into a row without room for them: its weakest quarter goes, or more if needed."""
        neighbours, weights = self.neighbours.numpy()[row], self.weights.numpy()[row]
        width = len(neighbours)
        new = np.argsort(-sums, kind="stable")[:width]
        used = int((neighbours >= 0).sum())
        keep = np.argsort(-weights[:used], kind="stable")[: width - max(width // 4, len(new))]
        ids = np.concatenate([neighbours[keep], cols[new]])
        values = np.concatenate([weights[keep], sums[new]])
        neighbours[:], weights[:] = -1, 0
        neighbours[: len(ids)], weights[: len(ids)] = ids, values
        return row * width + np.arange(width)

    def apply(self, delta: CooccurrenceDelta) -> None:
        """Follow the learner: write the changed slots and counts."""
        slots = unpack_tensor(delta.slots, np.int64, self.device)
        self.neighbours.view(-1)[slots] = unpack_tensor(delta.neighbours, np.int32, self.device)
        self.weights.view(-1)[slots] = unpack_tensor(delta.weights, np.float32, self.device)
        items = unpack_tensor(delta.items, np.int64, self.device)
        self.counts[items] = unpack_tensor(delta.counts, np.float32, self.device)

    def score(self, items: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Scores float32 [B, N] for histories `items` int64 [B, H] (-1 for none) with `weights` float32 [B, H]."""
        items, weights = items[:, : self.options.query_history], weights[:, : self.options.query_history]
        size, total = len(items), len(self.counts)
        sources = items.clamp(min=0)
        damped = (
            weights
            * self._query_weights[: items.shape[1]]
            / self.counts[sources].clamp(min=1) ** self.options.source_power
        )
        neighbours = self.neighbours[sources]
        # Free slots weigh nothing, so they may all fall on item 0.
        flat = neighbours.clamp_(min=0).add_(
            (torch.arange(size, device=self.device, dtype=torch.int32) * total)[:, None, None]
        )
        values = self.weights[sources].mul_(damped[..., None])
        scores = torch.zeros(size * total, device=self.device)
        scores.index_add_(0, flat.view(-1), values.view(-1))
        return scores.view(size, total).mul_(self.counts.clamp(min=1) ** -self.options.target_power)

    def snapshot(self) -> dict[str, bytes]:
        """The parameters as packed arrays."""
        return {
            "neighbours": pack_array(self.neighbours.cpu().numpy()),
            "weights": pack_array(self.weights.cpu().numpy()),
            "counts": pack_array(self.counts.cpu().numpy()),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`."""
        width = self.options.neighbours
        self.neighbours = unpack_tensor(arrays["neighbours"], np.int32, self.device).view(-1, width)
        self.weights = unpack_tensor(arrays["weights"], np.float32, self.device).view(-1, width)
        self.counts = unpack_tensor(arrays["counts"], np.float32, self.device)
