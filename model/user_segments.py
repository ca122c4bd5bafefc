"""Segments of people: clusters of their vectors, which follow the stream.

Spherical k-means (Dhillon, Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 42, 2001) a vector at a time, each centre with a rate of its own that falls with what it has taken (Sculley,
"Web-scale k-means clustering", WWW 2010, algorithm 1), but not to 0, as people and vectors move.
"""

from dataclasses import dataclass

import numpy as np

from model.arrays import pack_array, unpack_array
from model.batch import Weights


@dataclass(frozen=True)
class UserSegmentsOptions:
    """There are `segments`; 0 is none. The first `after` vectors are of items that hardly anything is known of: centres
    begin with the next. No centre moves by less than `rate` of the way."""

    segments: int = 0
    after: int = 512
    rate: float = 1e-3


class UserSegments:
    """`centres` float32 [segments, dimensions] at length 1, 0 where a segment has nobody yet."""

    name = "segments"

    def __init__(self, options: UserSegmentsOptions, dimensions: int) -> None:
        self.options = options
        self.centres = np.zeros((options.segments, dimensions), np.float32)
        # How many vectors each has taken, and last how many came before there were centres.
        self._taken = np.zeros(options.segments + 1, np.int64)

    def learn(self, vectors: Weights) -> bytes:
        """Take people's vectors float32 [n, dimensions] one by one. Returns the centres packed, empty where none has
        moved."""
        if not self.options.segments or not len(vectors):
            return b""
        moved = False
        lengths = np.linalg.norm(vectors, axis=1)
        for vector in vectors[lengths > 0] / lengths[lengths > 0, None]:
            if self._taken[-1] < self.options.after:
                self._taken[-1] += 1
                continue
            empty = np.flatnonzero(self._taken[:-1] == 0)
            nearest = int(empty[0]) if len(empty) else int((self.centres @ vector).argmax())
            self._taken[nearest] += 1
            rate = max(1 / self._taken[nearest], self.options.rate)
            centre = (1 - rate) * self.centres[nearest] + rate * vector
            self.centres[nearest] = centre / max(np.linalg.norm(centre), 1e-9)
            moved = True
        return pack_array(self.centres) if moved else b""

    def apply(self, centres: bytes) -> None:
        """Follow the learner."""
        if centres:
            self.centres = unpack_array(centres, np.float32).reshape(self.centres.shape)

    def of(self, queries: Weights) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The segment of each of the vectors float32 [B, dimensions]: int64 [B], -1 for a vector of zeros, and for all
        until there are segments."""
        if not self.options.segments or not self.centres.any():
            return np.full(len(queries), -1)
        return np.where(queries.any(1), (queries @ self.centres.T).argmax(1), -1)

    def snapshot(self) -> dict[str, bytes]:
        """The centres as packed arrays."""
        return {"centres": pack_array(self.centres), "taken": pack_array(self._taken)}

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`. Another number of segments, or of dimensions, begins anew."""
        centres, taken = unpack_array(arrays["centres"], np.float32), unpack_array(arrays["taken"], np.int64)
        if centres.size == self.centres.size and len(taken) == len(self._taken):
            self.centres, self._taken = centres.reshape(self.centres.shape), taken
