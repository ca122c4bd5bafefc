"""What is popular among people in the same context, as a country, a device or an age: candidates, and a signal where a
history says little.

How popular an item is in a context is drawn towards how popular it is with everybody, the more the less is known of the
context: smoothing as in Jelinek, Mercer, "Interpolated estimation of Markov source parameters from sparse data", 1980,
with a share that grows with the counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch

from model.arrays import unpack_array
from model.batch import Batch, Rows, Weights
from model.category_popularity import rise
from model.popularity import Popularity, PopularityDelta, PopularityOptions
from model.snapshot import Snapshot

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ContextPopularityOptions:
    """A person's context is what the newest event's `properties` say together; none where there are no such. The first
    `contexts` that come are told apart. Of each the `items` most popular are candidates. A context whose most popular
    item has `prior` interactions counts as much as everybody."""

    properties: tuple[str, ...] = ()
    contexts: int = 64
    items: int = 20
    prior: float = 4.0


class ContextPopularity:
    """`popularity` of each context, and the `best` items int64 [items] of each, best first, -1 where there are no more.
    On the CPU whatever the device is: a list asks for a few hundred items."""

    name = "context"

    def __init__(self, options: ContextPopularityOptions, popularity: PopularityOptions) -> None:
        self.options = options
        self.popularity: dict[str, Popularity] = {}
        self.best: dict[str, Rows] = {}
        self._popularity_options, self._items = popularity, 0
        self._one = np.zeros(0, np.int32)

    def of(self, snapshots: Sequence[Snapshot]) -> list[str]:
        """The people's contexts, "" for none."""
        names = self.options.properties
        if not names:
            return [""] * len(snapshots)
        told = [[str(s.properties.get(name, "")) for name in names] for s in snapshots]
        return ["|".join(values) if any(values) else "" for values in told]

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self._one = np.zeros(items, np.int32)
        for popularity in self.popularity.values():
            popularity.resize(items)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        self._one = np.zeros(len(rows), np.int32)
        for context, popularity in self.popularity.items():
            popularity.retain(rows)
            self._rank(context)

    def learn(self, batch: Batch, contexts: list[str]) -> dict[str, PopularityDelta]:
        """Add the batch's interactions to those of the people's `contexts`. Returns what changed, by context."""
        rows: dict[str, list[int]] = {}
        for row, (context, at) in enumerate(zip(contexts, batch.event_index.tolist(), strict=True)):
            if context and at >= 0 and self._room(context):
                rows.setdefault(context, []).append(row)
        found = {}
        for context, there in rows.items():
            parts = batch.items[there], batch.event_index[there], batch.timestamps[there]
            found[context] = delta = self.popularity[context].add(*parts)
            self._follow(context, delta)
        return found

    def apply(self, deltas: dict[str, PopularityDelta]) -> None:
        """Follow the learner."""
        for context, delta in deltas.items():
            if self._room(context):
                self.popularity[context].apply(delta)
                self._follow(context, delta)

    def near(self, contexts: list[str]) -> Rows:
        """The popular items int64 [B, items] (-1 for none) of each context; [B, 0] where there are no contexts."""
        if not self.best:
            return np.empty((len(contexts), 0), np.int64)
        nothing = np.full(self.options.items, -1)
        return np.stack([self.best.get(context, nothing) for context in contexts])

    def score_candidates(self, contexts: list[str], times: Rows, candidates: Rows, everybody: Popularity) -> Weights:
        """How popular each of `candidates` int64 [B, C] (-1 for none) is in its person's context, as a share of the
        most popular: float32 [B, C], 0 where there is no context. `times` int64 [B] are now, in epoch milliseconds."""
        scores = np.zeros(candidates.shape, np.float32)
        if not self.popularity:
            return scores
        sums, most = everybody.sums.cpu().numpy(), max(everybody.largest, 1e-30)
        for row, (context, now_ms) in enumerate(zip(contexts, times.tolist(), strict=True)):
            if (popularity := self.popularity.get(context)) is not None:
                known = popularity.largest * math.exp((popularity.landmark - now_ms) * popularity.rate)
                share = known / (known + self.options.prior)
                own = popularity.sums.numpy(), share / max(popularity.largest, 1e-30)
                _mix(candidates[row], *own, sums, (1 - share) / most, scores[row])
        return scores

    def _room(self, context: str) -> bool:
        """Whether the context is told apart, from now on if there is room."""
        if context not in self.popularity and len(self.popularity) < self.options.contexts:
            self.popularity[context] = Popularity(self._popularity_options, _CPU)
            self.popularity[context].resize(len(self._one))
            self.best[context] = np.full(self.options.items, -1)
        return context in self.popularity

    def _follow(self, context: str, delta: PopularityDelta) -> None:
        items = unpack_array(delta.items, np.int64)
        rise(items, self.popularity[context].sums.numpy(), self._one, self.best[context][None])

    def _rank(self, context: str) -> None:
        self.best[context] = np.full(self.options.items, -1)
        sums = self.popularity[context].sums.numpy()
        rise(np.flatnonzero(sums > 0), sums, self._one, self.best[context][None])

    def snapshot(self) -> dict[str, dict[str, dict[str, bytes]]]:
        """The parameters of each context as packed arrays, under the names of the properties."""
        return {"|".join(self.options.properties): {name: one.snapshot() for name, one in self.popularity.items()}}

    def load(self, packed: dict[str, dict[str, dict[str, bytes]]]) -> None:
        """The inverse of `snapshot`. Contexts of other properties than are asked for now are not taken."""
        for context, arrays in packed.get("|".join(self.options.properties), {}).items():
            if self._room(context):
                self.popularity[context].load(arrays)
                self._rank(context)


@numba.njit("(i8[:], f4[:], f8, f4[:], f8, f4[:])", cache=True, nogil=True)
def _mix(candidates, sums, scale, others, other_scale, scores):  # type: ignore[no-untyped-def]
    for c in range(len(candidates)):
        if candidates[c] >= 0:
            scores[c] = sums[candidates[c]] * scale + others[candidates[c]] * other_scale
