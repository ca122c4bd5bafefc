"""What is popular among items like those that a person looked at last: candidates where nobody's history says much."""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from model.batch import Rows, Weights

Categories = npt.NDArray[np.int32]
LEVELS = " > "
"""What stands between the levels of a category's path where it is one text."""


@dataclass(frozen=True)
class CategoryPopularityOptions:
    """The `items` most popular of each of the `categories` that come first among a person's `recent` newest items."""

    items: int = 50
    categories: int = 3
    recent: int = 10


class CategoryPopularity:
    """`best` int64 [categories, items]: each category's items by popularity, best first, of equals the lower row first,
    -1 where there are no more. All of it follows from the sums of `Popularity`, whose order between two items changes
    only with an interaction, and from the items' categories; so it has no state of its own.
    """

    def __init__(self, options: CategoryPopularityOptions) -> None:
        self.options = options
        self.best = np.empty((0, options.items), np.int64)

    def follow(self, items: Rows, sums: Weights, category: Categories) -> None:
        """Take in that the sums float32 [N] of `items` have grown; `category` int32 [N], -1 for none."""
        largest = int(category[items].max(initial=-1))
        if largest >= len(self.best):
            rows = max(2 * len(self.best), largest + 1)
            self.best = np.vstack([self.best, np.full((rows - len(self.best), self.options.items), -1, np.int64)])
        rise(items, sums, category, self.best)

    def rebuild(self, sums: Weights, category: Categories) -> None:
        """Start again, as after a restart or when an item has moved to another category."""
        self.best = self.best[:0]
        self.follow(np.flatnonzero((category >= 0) & (sums > 0)), sums, category)

    def near(self, histories: Rows, category: Categories) -> Rows:
        """The popular items int64 [B, E] (-1 for none) of the categories of `histories` int64 [B, H], newest first."""
        if not len(self.best):
            return np.empty((len(histories), 0), np.int64)
        return _near(histories[:, : self.options.recent], self.options.categories, category, self.best)

    def score_candidates(self, candidates: Rows, sums: Weights, category: Categories) -> Weights:
        """The sum of each of `candidates` int64 [B, C] (-1 for none) as a share of the most popular's of its category:
        float32 [B, C], 0 where it has none."""
        scores = np.zeros(candidates.shape, np.float32)
        if len(self.best):
            _shares(candidates, sums, category, self.best, scores)
        return scores


@numba.njit("b1(i8, i8, f4[:])", cache=True, nogil=True)
def _before(item, other, sums):  # type: ignore[no-untyped-def]
    return sums[item] > sums[other] or (sums[item] == sums[other] and item < other)


@numba.njit("(i8[:], f4[:], i4[:], i8[:,::1])", cache=True, nogil=True)
def rise(items, sums, category, best):  # type: ignore[no-untyped-def]
    """Put each of `items` int64 into its category's row of `best` int64 [categories, E], if need be in the place of the
    last, and the row in the order of `sums` float32 [N] again: others of it may have grown in the same batch."""
    for item in items:
        if category[item] < 0:
            continue
        row = best[category[item]]
        size, place, last = 0, -1, 0
        while size < len(row) and row[size] >= 0:
            if row[size] == item:
                place = size
            if _before(row[last], row[size], sums):
                last = size
            size += 1
        if place < 0:
            if size < len(row):
                row[size] = item
                size += 1
            elif _before(item, row[last], sums):
                row[last] = item
        for n in range(1, size):
            moving, place = row[n], n
            while place > 0 and _before(moving, row[place - 1], sums):
                row[place] = row[place - 1]
                place -= 1
            row[place] = moving


@numba.njit("i8[:,::1](i8[:,:], i8, i4[:], i8[:,::1])", cache=True, nogil=True)
def _near(histories, limit, category, best):  # type: ignore[no-untyped-def]
    width = best.shape[1]
    found = np.full((len(histories), limit * width), -1, np.int64)
    taken = np.empty(limit, np.int64)
    for n in range(len(histories)):
        count = 0
        for item in histories[n]:
            if item < 0 or category[item] < 0 or category[item] >= len(best):
                continue
            known = False
            for other in range(count):
                known |= taken[other] == category[item]
            if not known:
                taken[count] = category[item]
                found[n, count * width : (count + 1) * width] = best[category[item]]
                count += 1
                if count == limit:
                    break
    return found


@numba.njit("(i8[:,:], f4[:], i4[:], i8[:,::1], f4[:,::1])", cache=True, nogil=True)
def _shares(candidates, sums, category, best, scores):  # type: ignore[no-untyped-def]
    for n in range(len(candidates)):
        for c in range(candidates.shape[1]):
            item = candidates[n, c]
            if item >= 0 and category[item] >= 0 and category[item] < len(best) and best[category[item], 0] >= 0:
                scores[n, c] = sums[item] / max(sums[best[category[item], 0]], np.float32(1e-30))
