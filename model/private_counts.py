"""Differentially private statistics: what the lists are made of tells almost nothing of any one person.

Sources: Dwork, Roth, "The Algorithmic Foundations of Differential Privacy", 2014, theorem 3.22 (Gaussian mechanism);
Wilson et al., "Differentially Private SQL with Bounded User Contribution", PETS 2020 (bounded contributions); Feldman,
Zrnic, "Individual Privacy Accounting via a Renyi Filter", NeurIPS 2021 (releases that share one bound cost as one).
"""

import math
import secrets
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from model.arrays import pack_array, unpack_array
from model.batch import Batch, Rows, Weights

_SURE = 4.0


@dataclass(frozen=True)
class PrivacyOptions:
    """`noise_multiplier`: the standard deviation of the noise over the most that one person can change, 0 for no
    privacy. A person contributes at most their first `contributions` events, each with the `history` items before it.
    The statistics are released after each `release_interactions` interactions, for the first `items` items."""

    noise_multiplier: float = 0.0
    contributions: int = 50
    history: int = 10
    release_interactions: int = 10_000
    items: int = 2048

    @property
    def sensitivity(self) -> float:
        """How far one person can move all released sums together, in the Euclidean norm. An item counts once a person,
        and so does a pair, with the weight (1+n)^-1/2 where n items lie between them."""
        of_one = 1 + sum(1 / (1 + n) for n in range(self.history))
        return math.sqrt(self.contributions * of_one)

    @property
    def noise(self) -> float:
        """The standard deviation of what is added to each sum at each release."""
        return self.noise_multiplier * self.sensitivity if self.noise_multiplier else 0.0


def epsilon(noise_multiplier: float, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy for a person's whole stream, by Google's dp-accounting. All
    releases together are one Gaussian mechanism: each event is released once, and the bound is for all of them."""
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    if noise_multiplier < 0.05:
        # The accountant's grid would not fit into memory.
        return math.inf

    return float(PLDAccountant().compose(GaussianDpEvent(noise_multiplier)).get_epsilon(delta))


class PrivateCounts:
    """Released sums: `counts` float32 [N] of the people who took an item, and `pairs` float32 [N, N], above the
    diagonal, of those who took both. What came since the last release is held beside them, without noise. The list of
    items and the number of interactions are taken as public. The arrays exist on the learner only."""

    def __init__(self, options: PrivacyOptions) -> None:
        self.options = options
        self.releases = 0
        # Drawn once and kept with the state.
        self._seed = secrets.randbits(128)
        self._since = 0
        self.counts, self._new_counts = np.zeros((2, 0), np.float32)
        self.pairs, self._new_pairs = np.zeros((2, 0, 0), np.float32)
        self._pair_weights = (1 + np.arange(options.history, dtype=np.float32)) ** np.float32(-0.5)

    def resize(self, items: int) -> None:
        """Nothing to do before something is learned."""

    def learn(self, batch: Batch, known: int) -> bool:
        """Take the interactions one by one, of a catalogue of `known` items; whether there was a release."""
        options, released = self.options, False
        if not len(self.counts):
            self.counts, self._new_counts = np.zeros((2, options.items), np.float32)
            self.pairs, self._new_pairs = np.zeros((2, options.items, options.items), np.float32)
        for n, at in enumerate(batch.event_index.tolist()):
            if at < 0:
                continue
            item = int(batch.items[n, at])
            if batch.events[n] <= options.contributions and not batch.repeated[n] and item < options.items:
                self._new_counts[item] += 1
                older = batch.items[n, at + 1 : at + 1 + options.history]
                counted = (older >= 0) & (older < options.items)
                weights = self._pair_weights[: len(older)][counted]
                older = older[counted]
                self._new_pairs[np.minimum(older, item), np.maximum(older, item)] += weights
            self._since += 1
            if self._since == options.release_interactions:
                self._release(min(known, options.items))
                released = True
        return released

    def _release(self, known: int) -> None:
        # Made again of the same sums, a release has the same noise; made of others, it is another release.
        sums = blake2b(self._new_counts.tobytes() + self._new_pairs.tobytes(), digest_size=16)
        chance = np.random.default_rng([self._seed, self.releases, int.from_bytes(sums.digest())])
        counts = chance.normal(0, self.options.noise, known).astype(np.float32)
        pairs = chance.normal(0, self.options.noise, (known, known)).astype(np.float32)
        self.counts[:known] += self._new_counts[:known] + counts
        self.pairs[:known, :known] += self._new_pairs[:known, :known] + np.triu(pairs, 1)
        self._new_counts[:], self._new_pairs[:] = 0, 0
        self.releases, self._since = self.releases + 1, 0

    def strong_pairs(self) -> Weights:
        """The symmetric pair sums float32 [N, N], 0 where a sum may well be noise: below four standard deviations."""
        sums = self.pairs + self.pairs.T
        return sums * (sums > _SURE * self.options.noise * math.sqrt(self.releases))

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        if not len(self.counts):
            return
        rows = rows[rows < self.options.items]
        for sums in (self.counts, self._new_counts):
            kept = sums[rows]
            sums[:] = 0
            sums[: len(rows)] = kept
        for table in (self.pairs, self._new_pairs):
            both = table[np.ix_(rows, rows)]
            table[:] = 0
            table[: len(rows), : len(rows)] = both

    def snapshot(self) -> dict[str, bytes]:
        """The state as packed arrays."""
        return {
            "seed": str(self._seed).encode(),
            "releases": str(self.releases).encode(),
            "since": str(self._since).encode(),
            "counts": pack_array(self.counts),
            "new_counts": pack_array(self._new_counts),
            "pairs": pack_array(self.pairs),
            "new_pairs": pack_array(self._new_pairs),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`; sums of another bound on items are begun again."""
        self._seed, self.releases = int(arrays["seed"]), int(arrays["releases"])
        counts, new_counts = (unpack_array(arrays[name], np.float32) for name in ("counts", "new_counts"))
        if len(counts) == self.options.items:
            self._since = int(arrays["since"])
            self.counts, self._new_counts = counts, new_counts
            shape = (len(counts), len(counts))
            self.pairs = unpack_array(arrays["pairs"], np.float32).reshape(shape)
            self._new_pairs = unpack_array(arrays["new_pairs"], np.float32).reshape(shape)
