"""What the shop knows of how items belong together: "accessory_of", "same_series", whatever it calls it.

A relation of an item says after which others the item is to be looked at: who took a phone is a candidate for the case
that is an accessory of it, not the other way round. It is knowledge beside what people do, as the item-item edges of
Wang et al., "KGAT: Knowledge graph attention network for recommendation", KDD 2019, section 2, of one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.batch import Rows, Weights
from model.item_index import ItemIndex

NAMED = 64
"""How many of an item's relations count, the first."""


@dataclass(frozen=True)
class RelationsOptions:
    """A person is their `recent` newest items, of which the n-th counts (1+n)^-`decay`. Of what is related to them at
    most `items` are candidates, those of the newest first; the first `looked_at` that belong to an item are looked at.
    """

    recent: int = 10
    decay: float = 0.5
    items: int = 10
    looked_at: int = 64


class Related(NamedTuple):
    """What is related to B people's items: the `items` int64 [B, E], each once, -1 where there are no more; how much,
    `scores` float32 [B, E]; and `causes` int64 [B, E], the column of the newest item that leads there."""

    items: Rows
    scores: Weights
    causes: Rows

    def scores_of(self, candidates: Rows) -> Weights:
        """The scores of `candidates` int64 [B, C]: float32 [B, C], 0 for what is not related."""
        if not self.items.shape[1]:
            return np.zeros(candidates.shape, np.float32)
        found: Weights = ((candidates[:, :, None] == self.items[:, None]) * self.scores[:, None]).sum(2)
        return found

    def causes_of(self, listed: Rows) -> Rows:
        """The causes of `listed` int64 [B, K]: int64 [B, K], -1 for what is not related."""
        if not self.items.shape[1]:
            return np.full(listed.shape, -1)
        there = (listed[:, :, None] == self.items[:, None]) & (self.items >= 0)[:, None]
        found: Rows = np.where(there, self.causes[:, None], -1).max(2)
        return found


class Relations:
    """`named`: of each item the others that it is related to, by their ids, which need not be known."""

    name = "relation"

    def __init__(self, options: RelationsOptions) -> None:
        self.options = options
        self.named: dict[str, list[str]] = {}
        # The other way round, in the order in which they were told.
        self._following: dict[str, dict[str, None]] = {}
        # With how many items were known then.
        self._pairs: tuple[int, Rows] | None = None
        self._decay = ((1 + np.arange(options.recent)) ** -options.decay).tolist()

    def follow(self, item: str, others: Sequence[str]) -> None:
        """Take what the item is related to, in the place of what it was before."""
        self._pairs = None
        for other in self.named.pop(item, ()):
            del self._following[other][item]
            if not self._following[other]:
                del self._following[other]
        if others:
            self.named[item] = list(dict.fromkeys(others))[:NAMED]
            for other in self.named[item]:
                self._following.setdefault(other, {})[item] = None

    def retain(self, index: ItemIndex) -> None:
        """Forget the relations of items that `index` does not know."""
        self._pairs = None
        for item, row in zip(list(self.named), index.rows(self.named), strict=True):
            if row < 0:
                self.follow(item, ())

    def pairs(self, index: ItemIndex) -> Rows:
        """Each item and what it is related to, as rows int64 [P, 2], where both are known."""
        if self._pairs is not None and self._pairs[0] == len(index):
            return self._pairs[1]
        named = [(item, other) for item, others in self.named.items() for other in others]
        rows = np.array([index.rows(column) for column in zip(*named, strict=True)], np.int64).reshape(2, -1).T
        self._pairs = len(index), rows[(rows >= 0).all(1)]
        return self._pairs[1]

    def near(self, items: Rows, weights: Weights, index: ItemIndex, blocked: npt.NDArray[np.bool_]) -> Related:
        """What is related to the newest of each history `items` int64 [B, H], newest first, -1 for none, with `weights`
        float32 [B, H]: none of the history itself, nor of `blocked` bool [N]."""
        if not self.named:
            none = np.empty((len(items), 0), np.int64)
            return Related(none, none.astype(np.float32), none)
        size = self.options.items
        shape = len(items), size
        found = Related(np.full(shape, -1), np.zeros(shape, np.float32), np.full(shape, -1))
        for n, history in enumerate(items[:, : self.options.recent].tolist()):
            places: dict[int, int] = {}
            # With -1, of what is not known.
            own = {-1, *items[n].tolist()}
            for column, row in enumerate(history):
                following = self._following.get(index.ids[row], ()) if row >= 0 else ()
                for item in index.rows(islice(following, self.options.looked_at)):
                    if item not in places and len(places) < size and item not in own and not blocked[item]:
                        places[item] = len(places)
                        found.causes[n, places[item]] = column
                    if item in places:
                        found.scores[n, places[item]] += weights[n, column] * self._decay[column]
            found.items[n, : len(places)] = list(places)
        return found
