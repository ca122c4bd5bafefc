"""Which places of a list people see at all, so that what stands high is not taken for what is good.

A click on a place that is seldom seen counts as often as the place is seldom seen. Source: Joachims, Swaminathan,
Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017, section 4; the propensities are not modelled, but
counted from `impression` events.
"""

import numpy as np

from model.arrays import pack_array, unpack_array

LARGEST_WEIGHT = 10.0
"""What a click counts at most, which bounds the variance, at the price of some bias."""
_PRIOR = 20.0


class Exposure:
    """`seen` float64 [places]: how many lists were seen at each place, of the `lists` that were seen at all."""

    def __init__(self, places: int) -> None:
        self.seen, self.lists = np.zeros(places), 0.0

    def observe(self, place: int, first: bool) -> None:
        """An item at `place` was seen, the `first` of its list or one more, once for each place of a list."""
        if 0 <= place < len(self.seen):
            self.lists += first
            self.seen[place] += 1

    def weight(self, place: int) -> float:
        """What a click at `place` counts: one over the chance that it is seen, from 1 to `LARGEST_WEIGHT`; 1 where
        nothing is known, and for -1, which is no place."""
        if not 0 <= place < len(self.seen):
            return 1.0
        return float(min((self.lists + _PRIOR) / (min(self.seen[place], self.lists) + _PRIOR), LARGEST_WEIGHT))

    def pack(self) -> bytes:
        """`lists` and `seen` as one packed array float64."""
        return pack_array(np.concatenate([[self.lists], self.seen]))

    def load(self, packed: bytes) -> None:
        """The inverse of `pack`, for lists of another length too."""
        known = unpack_array(packed, np.float64)
        if len(known):
            size = min(len(known) - 1, len(self.seen))
            self.lists, self.seen[:size] = float(known[0]), known[1 : size + 1]
