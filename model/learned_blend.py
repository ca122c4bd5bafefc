"""The order of the candidates: a log-linear model of what a person takes next, learned from what they take.

The chance of a candidate is the softmax of its weighted features (McFadden, "Conditional logit analysis of qualitative
choice behavior", 1974). Each event that meets a list made before it is one step of Adagrad (Duchi, Hazan, Singer, JMLR
12, 2011) on the log loss, so the weights are never fitted to what they are tested on. A weight is a common part plus
one for how many events the person has, and one for the segment that they are of.

An event's negatives are the other candidates of the list; no others are sampled. The popular are candidates more often
than they are taken. That their popularity is a feature lets the weights take this back, as the log-Q correction of a
sampled softmax does with a fixed weight of -1 (Yi et al., "Sampling-bias-corrected neural modeling for large corpus
item recommendations", RecSys 2019, equation 3).
"""

from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from model.arrays import as_array, pack_array, unpack_array
from model.batch import Batch, Rows, Weights
from model.candidates import Candidates
from model.category_popularity import Categories
from model.exposure import Exposure
from schema.event import EVENT_TYPES

VERSION = 8
"""The version byte of a packed blend; it counts the features' meanings too."""

LEVELS = 5
FEATURES = 42
RECENT = 10
"""How many of the user's newest items the features of category look at."""

_FIXED = -2
_OWN_TYPES = np.array([EVENT_TYPES.index(name) for name in ("add_to_cart", "favorite", "purchase")], np.int64)


@dataclass(frozen=True)
class LearnedBlendOptions:
    """The person's `own_items` newest and `candidates` others are looked at for a list. The features of the last list
    of at most `remembered_users` wait for those users' next event. There are so many `clusters` of people. With
    `position_bias` what is taken from one of a list's `places` counts by how seldom that place is seen."""

    candidates: int = 50
    own_items: int = 50
    learning_rate: float = 0.3
    remembered_users: int = 4096
    clusters: int = 0
    places: int = 20
    position_bias: bool = False


class ShownLists:
    """What the last lists of at most `capacity` users were made of; who was shown one longest ago is forgotten first.

    `items` int64 [capacity, C], -1 for none, `features` float32 [capacity, C, FEATURES] and `parts` int64 [capacity, 2]
    (rows of weights) are at each user's place. The place that became free last is taken next, as a processor's cache
    still holds it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._places: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(capacity))
        self._items = np.empty((capacity, 0), np.int64)
        self._features = np.empty((capacity, 0, FEATURES), np.float32)
        self._parts = np.zeros((capacity, 2), np.int64)

    def put(self, users: list[str], items: Rows, features: Weights, parts: Rows) -> None:
        """Keep a batch's lists in the place of the users' earlier ones; of more than `capacity`, the last."""
        if (first := len(users) - self._capacity) > 0:
            users, items, features, parts = users[first:], items[first:], features[first:], parts[first:]
        columns, known = items.shape[1], self._items.shape[1]
        if columns > known:
            # By several columns at once, as histories grow; of zeros, which take memory only where they are written.
            items_before, features_before, used = self._items, self._features, list(self._places.values())
            self._items = np.full((self._capacity, columns + 16), -1)
            self._features = np.zeros((*self._items.shape, FEATURES), np.float32)
            self._items[used, :known], self._features[used, :known] = items_before[used], features_before[used]
        places = []
        for user in users:
            place = self._places.pop(user, None)
            if place is None:
                place = self._free.pop() if self._free else self._places.popitem(last=False)[1]
            self._places[user] = place
            places.append(place)
        _keep(np.array(places, np.int64), items, features, parts, self._items, self._features, self._parts)

    def pop(self, user: str) -> tuple[Rows, Weights, Rows] | None:
        """The user's list as item rows [C], features [C, FEATURES] and rows of weights [2], views until the next `put`.
        It is kept no longer. None where none is."""
        place = self._places.pop(user, None)
        if place is None:
            return None
        self._free.append(place)
        return self._items[place], self._features[place], self._parts[place]


class _Packed(msgspec.Struct, array_like=True):
    weights: bytes
    squares: bytes
    exposure: bytes = b""


class LearnedBlend:
    """`weights` float32 [1 + LEVELS + clusters, FEATURES]: the common part, then each level's, then each cluster's.
    Before anything is learned the order is that of the fixed blend."""

    def __init__(self, options: LearnedBlendOptions) -> None:
        self.options = options
        self.weights = np.zeros((1 + LEVELS + options.clusters, FEATURES), np.float32)
        self.weights[0, 0] = 1.0
        self._squares = np.full_like(self.weights, 0.01)
        self._shown = ShownLists(options.remembered_users)
        self.exposure = Exposure(options.places)

    def order(
        self,
        users: list[str],
        events: list[int],
        clusters: Rows,
        candidates: Candidates,
        features: Weights,
        k: int,
        fixed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Weights]:
        """The k best candidates of each row, best first: their columns int64 [B, k], -1 where there are no more, and
        their chances among the row's candidates float32 [B, k].

        `features` is float32 [B, C, FEATURES], `events` how many events each user has, `clusters` int64 [B] which
        cluster each is of, -1 for none. Who is `fixed` bool [B] gets the order of the fixed blend. What a user's list
        is made of is remembered until their next event.
        """
        parts = self._parts(events, clusters)
        by = parts.copy()
        if fixed is not None and fixed.any():
            by[fixed, 0] = _FIXED
        chosen, chances = _order(candidates.items, features, self.weights, by, k)
        self._shown.put(users, candidates.items, features, parts)
        return chosen, chances

    def beliefs(self, events: list[int], clusters: Rows, features: Weights) -> tuple[Weights, Weights]:
        """What the order makes of candidates, and how unsure of it it is: means and standard deviations float32 [B, C],
        for `features` float32 [B, C, FEATURES] and people as in `order`.

        The posterior of each weight is a normal distribution of the precision 1 plus the sum of its squared gradients,
        the diagonal of the empirical Fisher information.
        """
        parts = self._parts(events, clusters)
        mean, variance = (
            table[np.maximum(parts, 0)] * (parts >= 0)[..., None] for table in (self.weights, 1 / (1 + self._squares))
        )
        means = np.einsum("bcf,bf->bc", features, self.weights[0] + mean.sum(1))
        variances = np.einsum("bcf,bf->bc", features**2, 1 / (1 + self._squares[0]) + variance.sum(1))
        return means, np.sqrt(np.maximum(variances, 1e-6))

    def _parts(self, events: list[int], clusters: Rows) -> Rows:
        """The rows of weights of people with so many events each, of these clusters."""
        of_levels = [1 + level(count) for count in events]
        of_clusters = [1 + LEVELS + n if 0 <= n < self.options.clusters else -1 for n in clusters.tolist()]
        return np.array([*zip(of_levels, of_clusters, strict=True)], np.int64)

    def learn(self, user: str, item: int, place: int = -1) -> bool:
        """Learn from the item's row that the user took next, at this `place` of the list, -1 where they did not find it
        there; nothing where it was no candidate of the user's last list. Returns whether that list is remembered: a
        list teaches once."""
        shown = self._shown.pop(user)
        if shown is not None:
            weight = self.exposure.weight(place) if self.options.position_bias else 1.0
            _learn(*shown, item, weight, self.options.learning_rate, self.weights, self._squares)
        return shown is not None

    def forget(self, user: str) -> None:
        """Drop what is remembered of the user's last list."""
        self._shown.pop(user)

    def forget_lists(self) -> None:
        """Drop what is remembered of all lists: the rows of items have moved."""
        self._shown = ShownLists(self.options.remembered_users)

    def pack(self) -> bytes:
        """A version byte, and the weights, sums of squares and exposure as MessagePack."""
        packed = _Packed(pack_array(self.weights), pack_array(self._squares), self.exposure.pack())
        return bytes((VERSION,)) + msgspec.msgpack.encode(packed)

    @classmethod
    def unpack(cls, packed: bytes, options: LearnedBlendOptions) -> "LearnedBlend":
        """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
        if not 1 <= packed[0] <= VERSION:
            raise ValueError(f"blend state has version {packed[0]}, this code reads 1 to {VERSION}")
        state = msgspec.msgpack.decode(memoryview(packed)[1:], type=_Packed)
        blend = cls(options)
        # Version 1 had no signals, version 2 four of them and no popularity, version 3 no counts and ages of own items,
        # version 4 no content, version 5 no sequence and no relations, version 7 no people. Features that were not
        # there begin as all did.
        missing = {
            1: [16] * 26,
            2: [22, 22, *[24] * 16],
            3: [*[26] * 12, 27, 27, 27],
            4: [26] * 12,
            5: [*[26] * 4, *[30] * 4],
            6: [26] * 4,
            # Version 6 knew no exposure.
            7: [26] * 4,
            8: [],
        }[packed[0]]
        known = FEATURES - len(missing)
        weights = np.insert(unpack_array(state.weights, np.float32).reshape(-1, known), missing, 0, axis=1)
        squares = np.insert(unpack_array(state.squares, np.float32).reshape(-1, known), missing, 0.01, axis=1)
        # Before version 6 there were no clusters; of another number of them none is the same.
        rows = len(weights) if len(weights) == len(blend.weights) else 1 + LEVELS
        blend.weights[:rows], blend._squares[:rows] = weights[:rows], squares[:rows]
        blend.exposure.load(state.exposure)
        return blend


def level(events: int) -> int:
    """0 for up to 2 events, then 1 up to 14, 2 up to 62, 3 up to 254, and 4."""
    return min((events + 1).bit_length() - 1, 2 * LEVELS - 1) // 2


def features_of(
    candidates: Candidates,
    signals: Weights,
    popularity: Weights,
    blend_weights: tuple[float, ...],
    batch: Batch,
    category: Categories,
) -> Weights:
    """Features float32 [B, C, FEATURES] of the candidates: from their shares; from other models' scores `signals`
    float32 [11, B, C]; from how often each was interacted with, `popularity` float32 [B, C]; from what the user did
    last with their own items, how often and how long ago; and from each item's `category` int32 [N], -1 where it has
    none.
    """
    own = (batch.items, batch.types, batch.counts, batch.ages)
    return _features(*candidates, signals, popularity, as_array(blend_weights), *own, _OWN_TYPES, category)


@numba.njit(
    "(i8[::1], i8[:,::1], f4[:,:,::1], i8[:,::1], i8[:,::1], f4[:,:,::1], i8[:,::1])",
    cache=True,
    nogil=True,
)
def _keep(places, items, features, parts, kept_items, kept_features, kept_parts):  # type: ignore[no-untyped-def]
    columns = items.shape[1]
    for n, place in enumerate(places):
        kept_items[place, :columns], kept_items[place, columns:] = items[n], -1
        kept_features[place, :columns], kept_parts[place] = features[n], parts[n]


@numba.njit(
    "f4[:,:,::1](i8[:,::1], i8[:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:], f4[::1], i8[:,:], u1[:,:], u1[:,:], u1[:,:], "
    "i8[::1], i4[::1])",
    cache=True,
    nogil=True,
    fastmath={"nnan", "nsz", "contract", "reassoc"},
)
def _features(  # type: ignore[no-untyped-def]
    items, places, shares, signals, popularity, blend_weights, own, types, counts, ages, own_types, category
):
    rows, columns = items.shape
    models, recent = len(blend_weights), min(RECENT, own.shape[1])
    features = np.zeros((rows, columns, FEATURES), np.float32)
    floor, half = np.float32(0.02), np.float32(0.5)
    best = np.empty(models, np.float32)
    for n in range(rows):
        for model in range(models):
            best[model] = 1e-9
            for c in range(columns):
                if items[n, c] >= 0 and places[n, c] < 0:
                    best[model] = max(best[model], shares[model, n, c])
        for c in range(columns):
            item = items[n, c]
            if item < 0:
                continue
            feature = features[n, c]
            total = shares[models, n, c]
            place = 1
            for model in range(models):
                share = shares[model, n, c]
                total += blend_weights[model] * share
                share = min(share / best[model], np.float32(2))
                feature[place], feature[place + 1] = share, np.log(share + floor) * half
                place += 2
            feature[0] = np.log(total + floor)
            feature[place] = np.log(shares[models, n, c] + np.float32(1e-5)) * half
            at = places[n, c]
            if at >= 0:
                feature[place + 1] = 1
                feature[place + 2] = np.log(np.float32(1 + at))
                feature[place + 3] = at == 0
                feature[place + 4] = shares[0, n, c]
                for kind in range(len(own_types)):
                    feature[place + 5 + kind] = types[n, at] == own_types[kind]
                feature[FEATURES - 3] = np.log(np.float32(max(counts[n, at], 1)))
                feature[FEATURES - 2] = np.float32(ages[n, at]) / 16
                feature[FEATURES - 1] = np.float32(ages[n, at] * ages[n, at]) / 256
            place += 5 + len(own_types)
            # How much of the person's newest items is of the candidate's category, and how new the newest of them is.
            alike, newest = np.float32(0), np.float32(0)
            if category[item] >= 0:
                for column in range(recent):
                    if own[n, column] >= 0 and category[own[n, column]] == category[item]:
                        alike += np.float32(1 / (1 + column))
                        newest = max(newest, np.float32(1 / (1 + column)))
            feature[place] = np.log(alike + np.float32(0.05)) * half
            feature[place + 1] = newest
            feature[place + 2] = newest == 1
            # Popularity once more, so that the blend can correct for what each of the scores makes of it.
            feature[FEATURES - 4] = np.log(1 + popularity[n, c])
        for signal in range(len(signals)):
            largest = np.float32(1e-9)
            for c in range(columns):
                if places[n, c] < 0:
                    largest = max(largest, signals[signal, n, c])
            for c in range(columns):
                if items[n, c] >= 0:
                    share = max(signals[signal, n, c], np.float32(0)) / largest
                    place = FEATURES - 4 - 2 * (len(signals) - signal)
                    features[n, c, place] = min(share, np.float32(2))
                    features[n, c, place + 1] = np.log(share + floor) * half
    return features


@numba.njit(
    "Tuple((i8[:,::1], f4[:,::1]))(i8[:,::1], f4[:,:,::1], f4[:,::1], i8[:,::1], i8)",
    cache=True,
    nogil=True,
    fastmath=True,
)
def _order(items, features, weights, parts, k):  # type: ignore[no-untyped-def]
    rows, columns, size = features.shape
    chosen, chances = np.full((rows, k), -1, np.int64), np.zeros((rows, k), np.float32)
    scores, best = np.empty(columns, np.float32), np.empty(k, np.float32)
    for n in range(rows):
        weight = weights[0].copy()
        for part in parts[n]:
            if part >= 0:
                weight += weights[part]
        if parts[n, 0] == _FIXED:
            weight[:], weight[0] = 0, 1
        found = 0
        for c in range(columns):
            if items[n, c] < 0:
                continue
            score = np.float32(0)
            for f in range(size):
                score += weight[f] * features[n, c, f]
            scores[c] = score
            # Of equals, the item of the lower row comes first.
            last = items[n, chosen[n, k - 1]]
            if found < k or score > best[k - 1] or (score == best[k - 1] and items[n, c] < last):
                place = min(found, k - 1)
                while place > 0 and (
                    score > best[place - 1]
                    or (score == best[place - 1] and items[n, c] < items[n, chosen[n, place - 1]])
                ):
                    best[place], chosen[n, place] = best[place - 1], chosen[n, place - 1]
                    place -= 1
                best[place], chosen[n, place] = score, c
                found = min(found + 1, k)
        total = np.float32(0)
        for c in range(columns):
            if items[n, c] >= 0:
                total += np.exp(scores[c] - best[0])
        for place in range(found):
            chances[n, place] = np.exp(best[place] - best[0]) / total
    return chosen, chances


@numba.njit("(i8[::1], f4[:,::1], i8[::1], i8, f8, f8, f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def _learn(items, features, parts, item, counts, rate, weights, squares):  # type: ignore[no-untyped-def]
    """One step on -log softmax(features @ (weights[0] + the sum of weights[parts])) at the item's column, times what
    that `counts`."""
    columns, size = features.shape
    weight = weights[0].copy()
    for part in parts:
        if part >= 0:
            weight += weights[part]
    scores = np.empty(columns, np.float32)
    taken, largest, total = -1, np.float32(-1e30), np.float32(0)
    for c in range(columns):
        if items[c] >= 0:
            score = np.float32(0)
            for f in range(size):
                score += weight[f] * features[c, f]
            scores[c] = score
            largest = max(largest, score)
            if items[c] == item:
                taken = c
    if taken < 0:
        return
    gradient = np.zeros(size, np.float32)
    for c in range(columns):
        if items[c] >= 0:
            scores[c] = np.exp(scores[c] - largest)
            total += scores[c]
    for c in range(columns):
        if items[c] >= 0:
            chance = np.float32(counts) * (scores[c] / total - np.float32(1 if c == taken else 0))
            for f in range(size):
                gradient[f] += chance * features[c, f]
    for row, step in ((0, rate), (parts[0], rate / 2), (parts[1], rate / 2)):
        for f in range(size if row >= 0 else 0):
            squares[row, f] += gradient[f] * gradient[f]
            weights[row, f] -= step * gradient[f] / np.sqrt(squares[row, f])
