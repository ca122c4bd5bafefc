"""Linear item-to-item weights in closed form, kept up to date with every interaction and solved again as they grow.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (EASE), WWW 2019, equation 8. The Gram matrix is a
sum over interactions. Unlike there, two items of one person count the less the more others stand between them, by
(1+distance)^-pair_decay: a convex falling function of the distance, with which the matrix of whole histories without
repetitions is positive semidefinite (Polya's criterion). Where a catalogue has more than `slots` items, the densest
keep a row: the rest is left to co-occurrence.
"""

from dataclasses import dataclass

import msgspec
import numba
import numpy as np
import torch

from model.arrays import grown, pack_array, unpack_array, unpack_tensor
from model.batch import Batch, Rows, Weights


@dataclass(frozen=True)
class LinearItemModelOptions:
    """At most `slots` items; solved with `regularization` whenever the interactions have grown by `growth`, and first
    after `first` of them. All items of a history say the same; with `pair_decay` 0 they are also learned alike."""

    slots: int = 1024
    regularization: float = 100.0
    pair_decay: float = 0.35
    growth: float = 0.25
    first: int = 1000


class LinearItemModelDelta(msgspec.Struct, array_like=True):
    """Empty, or what a solution gave: each slot's item int64 [S], and the weights float32 [S, S]."""

    items: bytes
    weights: bytes


class LinearItemModel:
    """`weights` float32 [S, S]: what having the item of the row says for the item of the column; `items` int64 [S] are
    their rows in the item index. The Gram matrix float32 [slots, slots] exists on the learner only."""

    name = "linear"

    def __init__(self, options: LinearItemModelOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.items = torch.empty(0, dtype=torch.int64, device=device)
        self.weights = torch.empty(0, 0, device=device)
        # Each item's slot in `weights`, -1 for none.
        self._slot = torch.empty(0, dtype=torch.int64, device=device)
        self._counts = np.zeros(0, np.float32)
        # Whose the rows of the Gram matrix are, -1 where one is free; and where each item's is, -1 for nowhere.
        self._held = np.full(options.slots, -1, np.int64)
        self._holds = np.zeros(0, np.int64)
        self._gram = np.zeros((0, 0), np.float32)
        self._by_distance = np.empty(0, np.float32)
        self._learned, self._due = 0, options.first
        self._bind()

    def resize(self, items: int) -> None:
        """Make room for `items` items."""
        self._slot = grown(self._slot, items, -1)
        self._counts = np.append(self._counts, np.zeros(items - len(self._counts), np.float32))
        self._holds = np.append(self._holds, np.full(items - len(self._holds), -1, np.int64))
        self._bind()

    def _bind(self) -> None:
        """Name the CPU's tensors as arrays, once: doing so for each event would cost as much as the kernel."""
        if self.device.type == "cpu":
            self._arrays = (self._slot.numpy(), self.weights.numpy())

    def learn(self, batch: Batch) -> LinearItemModelDelta:
        """Count the interactions one by one; they are solved at the same ones wherever a batch is cut."""
        if not len(self._gram):
            self._gram = np.zeros((self.options.slots, self.options.slots), np.float32)
        begin, solved = 0, False
        while begin < len(batch.items):
            state = (self._pair_weights(batch.items.shape[1]), self._counts, self._held, self._holds, self._gram)
            limit = self._due - self._learned
            begin, taught = _count(batch.items, batch.event_index, batch.repeated, begin, limit, *state)
            self._learned += taught
            if self._learned == self._due:
                self._solve()
                solved = True
        if not solved:
            return LinearItemModelDelta(b"", b"")
        return LinearItemModelDelta(pack_array(self.items.cpu().numpy()), pack_array(self.weights.cpu().numpy()))

    def _pair_weights(self, length: int) -> Weights:
        """What a pair counts by its distance, 0 up to `length`."""
        if length >= len(self._by_distance):
            distances = np.arange(2 * length + 1, dtype=np.float32)
            self._by_distance = (1 + distances) ** np.float32(-self.options.pair_decay)
        return self._by_distance

    def _solve(self) -> None:
        """Equation 8: with P = (X'X + regularization * I)^-1, the weight from i to j is -P[i, j] / P[j, j]."""
        self._due = self._learned + max(round(self._learned * self.options.growth), 1)
        used = np.flatnonzero(self._held >= 0)
        gram = torch.from_numpy(self._gram[np.ix_(used, used)])
        gram.diagonal().add_(self.options.regularization)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            # Pairs of people whose item had no row when they took it are counted without the item, so a Gram matrix of
            # a stream with more items than slots need not be positive definite. The last solution stays.
            return
        inverse = torch.cholesky_inverse(factor)
        weights = inverse / -inverse.diagonal()
        weights.fill_diagonal_(0)
        self._take(torch.from_numpy(self._held[used]), weights)

    def _take(self, items: torch.Tensor, weights: torch.Tensor) -> None:
        self.items, self.weights = items.to(self.device), weights.to(self.device).contiguous()
        self._slot.fill_(-1)
        self._slot[self.items] = torch.arange(len(items), device=self.device)
        self._bind()

    def apply(self, delta: LinearItemModelDelta) -> None:
        """Follow the learner."""
        if delta.items:
            items = unpack_tensor(delta.items, np.int64, self.device)
            self._take(items, unpack_tensor(delta.weights, np.float32, self.device).view(len(items), len(items)))

    def score(self, items: Rows, weights: Weights, out: torch.Tensor) -> None:
        """Writes scores float32 [B, N] to `out`, for histories `items` int64 [B, H] (-1 for none) with `weights`
        float32 [B, H]: 0 where an item has no slot."""
        out.zero_()
        out[:, self.items] = self._query(items, weights) @ self.weights

    def score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """Scores float32 [B, C] of `candidates` int64 [B, C] for histories `items` int64 [B, H] with `weights` float32
        [B, H] (-1 for none in both): 0 where an item has no slot."""
        if self.device.type == "cpu":
            return _score_candidates(items, weights, candidates, *self._arrays)
        return self._score_candidates(items, weights, candidates)

    def _score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """The torch version, for a GPU."""
        scores = torch.nn.functional.pad(self._query(items, weights) @ self.weights, (0, 1))
        return scores.gather(1, self._slots_of(candidates) % scores.shape[1]).cpu().numpy()

    def _query(self, items: Rows, weights: Weights) -> torch.Tensor:
        """The histories by slots, float32 [B, S]."""
        query = torch.zeros(len(items), len(self.weights) + 1, device=self.device)
        query.scatter_add_(1, self._slots_of(items) % query.shape[1], torch.from_numpy(weights).to(self.device))
        return query[:, :-1]

    def _slots_of(self, rows: Rows) -> torch.Tensor:
        items = torch.from_numpy(rows).to(self.device)
        return self._slot[items.clamp(min=0)].where(items >= 0, -1)

    def snapshot(self) -> dict[str, bytes]:
        """The parameters and the statistics as packed arrays."""
        return {
            "items": pack_array(self.items.cpu().numpy()),
            "weights": pack_array(self.weights.cpu().numpy()),
            "counts": pack_array(self._counts),
            "held": pack_array(self._held),
            "gram": pack_array(self._gram),
            "learned": str(self._learned).encode(),
            "due": str(self._due).encode(),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`."""
        self.apply(LinearItemModelDelta(arrays["items"], arrays["weights"]))
        self._counts = unpack_array(arrays["counts"], np.float32)
        self._held = unpack_array(arrays["held"], np.int64)
        used = np.flatnonzero(self._held >= 0)
        self._holds[self._held[used]] = used
        gram = unpack_array(arrays["gram"], np.float32)
        self._gram = gram.reshape(len(self._held), len(self._held)) if len(gram) else np.zeros((0, 0), np.float32)
        self._learned, self._due = int(arrays["learned"]), int(arrays["due"])


@numba.njit(
    "UniTuple(i8, 2)(i8[:,:], i8[::1], b1[::1], i8, i8, f4[::1], f4[::1], i8[::1], i8[::1], f4[:,::1])", cache=True
)
def _count(histories, at, repeated, begin, limit, pair_weights, counts, held, holds, gram):  # type: ignore[no-untyped-def]
    """Count from the interaction `begin` on until `limit` are counted: each item that is new to its user, and its pairs
    with the user's others. Returns where it stopped, and how many it counted.

    An item without a row gets a free one, or that of the item counted least if it is counted more itself; the row then
    starts empty.
    """
    taught = 0
    for n in range(begin, len(histories)):
        if taught == limit:
            return n, taught
        if at[n] < 0 or repeated[n]:
            continue
        taught += 1
        item = histories[n, at[n]]
        counts[item] += 1
        row = holds[item]
        if row < 0:
            least, fewest = -1, counts[item]
            for slot in range(len(held)):
                if held[slot] < 0:
                    least = slot
                    break
                if counts[held[slot]] < fewest:
                    least, fewest = slot, counts[held[slot]]
            if least < 0:
                continue
            if held[least] >= 0:
                holds[held[least]] = -1
                gram[least, :] = 0
                gram[:, least] = 0
            row = least
            held[row], holds[item] = item, row
        gram[row, row] += 1
        for column in range(histories.shape[1]):
            other = histories[n, column]
            if other >= 0 and other != item and holds[other] >= 0:
                weight = pair_weights[abs(column - at[n])]
                gram[row, holds[other]] += weight
                gram[holds[other], row] += weight
    return len(histories), taught


@numba.njit("f4[:,::1](i8[:,:], f4[:,:], i8[:,:], i8[::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def _score_candidates(histories, weights, candidates, slot_of, table):  # type: ignore[no-untyped-def]
    scores = np.zeros(candidates.shape, np.float32)
    asked = np.empty(candidates.shape[1], np.int64)
    for n in range(len(histories)):
        for c in range(len(asked)):
            asked[c] = slot_of[candidates[n, c]] if candidates[n, c] >= 0 else -1
        for column in range(histories.shape[1]):
            item = histories[n, column]
            if item >= 0 and slot_of[item] >= 0:
                row, weight = table[slot_of[item]], weights[n, column]
                for c in range(len(asked)):
                    if asked[c] >= 0:
                        scores[n, c] += row[asked[c]] * weight
    return scores
