"""Places of a list that are given to chance, each with its propensity, so that other policies can be estimated.

Sources: Chen et al., "Top-K Off-Policy Correction for a REINFORCE Recommender System", WSDM 2019, section 5 (softmax
exploration); Thompson, "On the likelihood that one unknown probability exceeds another in view of the evidence of two
samples", Biometrika 25, 1933, with the posterior as in Chapelle, Li, "An empirical evaluation of Thompson sampling",
NIPS 2011, algorithm 3. `model.off_policy` is what the propensities are for: so those of Thompson sampling are computed,
not counted.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b

import numba
import numpy as np

from model.batch import Rows, Weights

# Places and weights of a normal variable's quadrature: beyond four deviations one item in 15,000 is left.
_PLACES = np.linspace(-4, 4, 65)
_DENSITY = np.exp(-(_PLACES**2) / 2) / np.exp(-(_PLACES**2) / 2).sum()


def draws(names: Sequence[str], slots: int, seed: int) -> Weights:
    """Numbers float32 [B, slots] from 0 to below 1 that depend on `names`, one for each list, and the seed alone: a
    list does not change with the batch that it is made in. Those of two slots, or seeds, are independent."""
    hashes = [[_hash(f"{seed}:{slot}:{name}") for slot in range(slots)] for name in names]
    return np.array(hashes, np.float32).reshape(len(names), slots) / np.float32(2**24)


def _hash(text: str) -> int:
    """Three bytes of BLAKE2b. A CRC will not do: those of two slots differ by a constant."""
    return int.from_bytes(blake2b(text.encode(), digest_size=3).digest(), "big")


def explore(
    columns: Rows,
    chances: Weights,
    items: Rows,
    first: int,
    scores: Weights,
    spreads: Weights | None,
    drawn: Weights,
    temperature: float,
) -> Weights:
    """Give the last places of each list to items drawn from some of the candidates, in place.

    `columns` int64 [B, K] are the places among the candidates `items` int64 [B, C] (-1 for none) of each list, best
    first, and -1 where it is shorter; `chances` float32 [B, K] are theirs. Drawn from are the candidates from column
    `first` on that are not on the rest of the list, by a softmax of their `scores` float32 [B, E] over `temperature`;
    where `spreads` float32 [B, E] are given, each by the chance that it is the best of them, as the truth lies about
    `scores` with these standard deviations. One is drawn for each of `drawn` float32 [B, S], as long as there are any:
    then what stood there moves on. Returns the propensities float32 [B, K], 0 for what was not drawn. What was drawn
    has the chance 0: the blend has not put it there.
    """
    propensities = np.zeros(columns.shape, np.float32)
    if not drawn.shape[1]:
        return propensities
    bounded = np.zeros((len(scores), 0), np.float32) if spreads is None else spreads
    _explore(columns, chances, items, first, scores, bounded, drawn, temperature, propensities)
    return propensities


@numba.njit("(f4[:], f4[:], b1[::1], f4[::1])", cache=True, nogil=True)
def _chances_of_best(scores, spreads, there, shares):  # type: ignore[no-untyped-def]
    """How likely each of those that are `there` is the largest."""
    shares[:] = 0
    for e in range(len(scores)):
        for n in range(len(_PLACES) if there[e] else 0):
            chance, score = _DENSITY[n], scores[e] + spreads[e] * _PLACES[n]
            for other in range(len(scores)):
                if there[other] and other != e:
                    chance *= 0.5 * math.erfc((scores[other] - score) / (spreads[other] * math.sqrt(2)))
            shares[e] += chance


@numba.njit("(i8[:,:], f4[:,:], i8[:,:], i8, f4[:,:], f4[:,:], f4[:,:], f8, f4[:,:])", cache=True, nogil=True)
def _explore(  # type: ignore[no-untyped-def]
    columns, chances, items, first, scores, spreads, drawn, temperature, propensities
):
    width, size = columns.shape[1], scores.shape[1]
    slots = min(drawn.shape[1], width)
    shares, before, chance_before = np.empty(size, np.float32), np.empty(width, np.int64), np.empty(width, np.float32)
    there = np.empty(size, np.bool_)
    for row in range(len(columns)):
        listed = 0
        while listed < width and columns[row, listed] >= 0:
            before[listed], chance_before[listed] = columns[row, listed], chances[row, listed]
            listed += 1
        place = kept = min(listed, width - slots)
        for slot in range(slots):
            for e in range(size):
                there[e] = items[row, first + e] >= 0
                for n in range(place):
                    there[e] &= columns[row, n] != first + e
                shares[e] = np.exp((scores[row, e] - 1) / temperature) if there[e] else 0
            if spreads.shape[1]:
                _chances_of_best(scores[row], spreads[row], there, shares)
            total = np.float32(0)
            for e in range(size):
                total += shares[e]
            if total == 0:
                break
            rest, chosen = drawn[row, slot] * total, -1
            for e in range(size):
                if shares[e] > 0 and (chosen < 0 or rest >= 0):
                    chosen = e
                    rest -= shares[e]
            columns[row, place], chances[row, place] = first + chosen, 0
            propensities[row, place] = shares[chosen] / total
            place += 1
        # Places that nothing was drawn for.
        for n in range(kept, listed):
            if place < width:
                again = False
                for other in range(kept, place):
                    again |= columns[row, other] == before[n]
                if not again:
                    columns[row, place], chances[row, place] = before[n], chance_before[n]
                    place += 1
