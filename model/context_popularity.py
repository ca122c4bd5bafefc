"""How many people took an item lately, of all and of those in the same context, as a country, a device or an age:
candidates, and a signal where a history says little.

Each person counts once for an item, however often they take it: what few people take again and again says little of
what others will. How popular an item is in a context is drawn towards how popular it is with everybody, the more the
less is known of the context: smoothing as in Jelinek, Mercer, "Interpolated estimation of Markov source parameters from
sparse data", 1980, with a share that grows with the counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.arrays import unpack_array
from model.batch import Batch, Rows, Weights
from model.category_popularity import rise
from model.popularity import Popularity, PopularityDelta, PopularityOptions
from model.snapshot import Snapshot

Properties = dict[str, str | bool | float]
_CPU = torch.device("cpu")
_ALL = ""


@dataclass(frozen=True)
class ContextPopularityOptions:
    """A person's context is what the newest event's `properties` say together; none where there are no such. The first
    `contexts` that come are told apart. Of each the `items` most popular are candidates. A context whose most popular
    item has `prior` people counts as much as everybody."""

    properties: tuple[str, ...] = ()
    contexts: int = 64
    items: int = 20
    prior: float = 4.0


class ContextPopularity:
    """`popularity` in each context, that of everybody under "", and the `best` items int64 [items] of each context,
    best first, -1 where there are no more. On the CPU whatever the device is: a list asks for a few hundred items."""

    def __init__(self, options: ContextPopularityOptions, popularity: PopularityOptions) -> None:
        self.options = options
        self.popularity = {_ALL: Popularity(popularity, _CPU)}
        self.best: dict[str, Rows] = {}
        self._popularity_options = popularity
        self._one = np.zeros(0, np.int32)

    @property
    def everybody(self) -> Popularity:
        """How many people took each item."""
        return self.popularity[_ALL]

    def of(self, snapshots: Sequence[Snapshot]) -> list[str]:
        """The people's contexts, "" for none."""
        names = self.options.properties
        if not names:
            return [_ALL] * len(snapshots)
        told = [[str(s.properties.get(name, "")) for name in names] for s in snapshots]
        return ["|".join(values) if any(values) else _ALL for values in told]

    def said_in(self, properties: Properties) -> Properties:
        """What the `properties` of an event say of the context."""
        return {name: properties[name] for name in self.options.properties if name in properties}

    def well_known(self, snapshots: Sequence[Snapshot]) -> list[Properties]:
        """What is said in the people's contexts, each once, that count for as much as everybody does or for more."""
        found: dict[str, Properties] = {}
        for context, one in zip(self.of(snapshots), snapshots, strict=True) if self.best else ():
            if context not in found and context in self.best and self._share(context, one.event_timestamp) >= 1 / 2:
                found[context] = self.said_in(one.properties)
        return list(found.values())

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self._one = np.zeros(items, np.int32)
        for popularity in self.popularity.values():
            popularity.resize(items)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        self._one = np.zeros(len(rows), np.int32)
        for popularity in self.popularity.values():
            popularity.retain(rows)
        for context in self.best:
            self._rank(context)

    def learn(self, batch: Batch, contexts: list[str]) -> dict[str, PopularityDelta]:
        """Count who took something for the first time, with all and in their context. Returns what changed, by
        context."""
        first = batch.event_index.copy()
        first[batch.repeated] = -1
        found = {_ALL: self.everybody.add(batch.items, first, batch.timestamps)}
        rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(first >= 0).tolist() if self.options.properties else ():
            if contexts[row] != _ALL and self._room(contexts[row]):
                rows.setdefault(contexts[row], []).append(row)
        for context, there in rows.items():
            found[context] = self.popularity[context].add(batch.items[there], first[there], batch.timestamps[there])
            self._follow(context, found[context])
        return found

    def apply(self, deltas: dict[str, PopularityDelta]) -> None:
        """Follow the learner."""
        for context, delta in deltas.items():
            if context == _ALL:
                self.everybody.apply(delta)
            elif self._room(context):
                self.popularity[context].apply(delta)
                self._follow(context, delta)

    def near(self, contexts: list[str]) -> Rows:
        """The popular items int64 [B, items] (-1 for none) of each context; [B, 0] where there are no contexts."""
        if not self.best:
            return np.empty((len(contexts), 0), np.int64)
        nothing = np.full(self.options.items, -1)
        return np.stack([self.best.get(context, nothing) for context in contexts])

    def score_candidates(self, contexts: list[str], times: Rows, candidates: Rows) -> Weights:
        """How popular each of `candidates` int64 [B, C] (-1 for none) is in its person's context, with everybody where
        there is none, as a share of the most popular: float32 [B, C]. `times` int64 [B] are now, in epoch ms."""
        scores = self.everybody.shares_of(candidates)
        for row, context in enumerate(contexts if self.best else ()):
            if context in self.best:
                share = np.float32(self._share(context, int(times[row])))
                there = self.popularity[context].shares_of(candidates[row : row + 1])[0]
                scores[row] += share * (there - scores[row])
        return scores

    def _share(self, context: str, now_ms: int) -> float:
        """For how much the context counts beside everybody, from 0 to 1."""
        popularity = self.popularity[context]
        # Who is late is told what is known today.
        age = max(now_ms - popularity.landmark, 0)
        known = popularity.largest * math.exp(-age * popularity.rate)
        return known / (known + self.options.prior)

    def _room(self, context: str) -> bool:
        """Whether the context is told apart, from now on if there is room."""
        if context not in self.best and len(self.best) < self.options.contexts:
            self.popularity[context] = Popularity(self._popularity_options, _CPU)
            self.popularity[context].resize(len(self._one))
            self.best[context] = np.full(self.options.items, -1)
        return context in self.best

    def _follow(self, context: str, delta: PopularityDelta) -> None:
        items = unpack_array(delta.items, np.int64)
        rise(items, self.popularity[context].array, self._one, self.best[context][None])

    def _rank(self, context: str) -> None:
        self.best[context] = np.full(self.options.items, -1)
        sums = self.popularity[context].array
        rise(np.flatnonzero(sums > 0), sums, self._one, self.best[context][None])

    def snapshot(self) -> dict[str, dict[str, dict[str, bytes]]]:
        """The parameters as packed arrays: of everybody under "", of each context under the names of the properties."""
        found = {_ALL: {_ALL: self.everybody.snapshot()}}
        if self.best:
            found["|".join(self.options.properties)] = {name: self.popularity[name].snapshot() for name in self.best}
        return found

    def load(self, packed: dict[str, dict[str, dict[str, bytes]]], popularity: Popularity) -> None:
        """The inverse of `snapshot`. Contexts of other properties than are asked for now are not taken. A state from
        before people were counted begins with the interactions, which the model's `popularity` has."""
        self.everybody.load(packed[_ALL][_ALL] if packed else popularity.snapshot())
        for context, arrays in packed.get("|".join(self.options.properties), {}).items():
            if context == _ALL:
                continue
            if self._room(context):
                self.popularity[context].load(arrays)
                self._rank(context)
