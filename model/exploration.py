"""Places of a list that are given to chance, each with its propensity, so that other policies can be estimated.

Source: Chen et al., "Top-K Off-Policy Correction for a REINFORCE Recommender System", WSDM 2019, section 5 (softmax
exploration); `model.off_policy` is what the propensities are for.
"""

from collections.abc import Sequence
from zlib import crc32

import numba
import numpy as np

from model.batch import Rows, Weights


def draws(names: Sequence[str], slots: int, seed: int) -> Weights:
    """Numbers float32 [B, slots] from 0 to below 1 that depend on `names`, one for each list, and the seed alone: a
    list does not change with the batch that it is made in."""
    hashes = [[crc32(f"{seed}:{slot}:{name}".encode()) for slot in range(slots)] for name in names]
    return (np.array(hashes, np.uint32).reshape(len(names), slots) >> 8).astype(np.float32) / np.float32(2**24)


def explore(
    columns: Rows, chances: Weights, items: Rows, first: int, scores: Weights, drawn: Weights, temperature: float
) -> Weights:
    """Give the last places of each list to items drawn from some of the candidates, in place.

    `columns` int64 [B, K] are the places among the candidates `items` int64 [B, C] (-1 for none) of each list, best
    first, and -1 where it is shorter; `chances` float32 [B, K] are theirs. Drawn from are the candidates from column
    `first` on that are not on the rest of the list, by a softmax of their `scores` float32 [B, E] over `temperature`;
    one for each of `drawn` float32 [B, S]. Returns the propensities float32 [B, K], 0 for what was not drawn. What was
    drawn has the chance 0: the blend has not put it there.
    """
    propensities = np.zeros(columns.shape, np.float32)
    _explore(columns, chances, items, first, scores, drawn, temperature, propensities)
    return propensities


@numba.njit("(i8[:,:], f4[:,:], i8[:,:], i8, f4[:,:], f4[:,:], f8, f4[:,:])", cache=True, nogil=True)
def _explore(columns, chances, items, first, scores, drawn, temperature, propensities):  # type: ignore[no-untyped-def]
    slots, size = drawn.shape[1], scores.shape[1]
    shares = np.empty(size, np.float32)
    for row in range(len(columns)):
        listed = 0
        while listed < columns.shape[1] and columns[row, listed] >= 0:
            listed += 1
        kept = min(listed, columns.shape[1] - slots)
        for slot in range(slots):
            total = np.float32(0)
            for e in range(size):
                there = items[row, first + e] >= 0
                for place in range(kept + slot):
                    there &= columns[row, place] != first + e
                shares[e] = np.exp((scores[row, e] - 1) / temperature) if there else 0
                total += shares[e]
            if total == 0:
                break
            rest, chosen = drawn[row, slot] * total, -1
            for e in range(size):
                if shares[e] > 0 and (chosen < 0 or rest >= 0):
                    chosen = e
                    rest -= shares[e]
            place = kept + slot
            columns[row, place], chances[row, place] = first + chosen, 0
            propensities[row, place] = shares[chosen] / total
