"""User-to-user collaborative filtering: what people with similar vectors took lately, as candidates.

Source: Herlocker, Konstan, Borchers, Riedl, "An algorithmic framework for performing collaborative filtering", SIGIR
1999, section 3, with the cosine of folded-in vectors as the similarity. The people are those of the factorisation's
reservoir, each as of the step in which their vector was folded in last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numba
import numpy as np
import torch

from model import devices
from model.arrays import closed_up, moved, pack_array, unpack_array, unpack_tensor
from model.batch import Rows
from model.candidates import choose_largest
from model.matrix_factorization import MatrixFactorizationDelta


@dataclass(frozen=True)
class UserNeighboursOptions:
    """The `items` best of the `nearest` people are candidates; 0 of these leaves the source out. The n-th newest item
    of a neighbour counts (1+n)^-`decay`."""

    nearest: int = 0
    items: int = 20
    decay: float = 0.5


class UserNeighbours:
    """`histories` int64 [U, H], newest first, -1 for none, and `vectors` float32 [U, dimensions] at length 1: the
    people of the reservoir. A user is not their own neighbour, nor is who shares their row of it."""

    def __init__(
        self, options: UserNeighboursOptions, users: int, history: int, dimensions: int, device: torch.device
    ) -> None:
        self.options = options
        self.device = device
        users = users if options.nearest else 0
        self.histories = torch.full((users, history), -1, dtype=torch.int64, device=device)
        self.vectors = torch.zeros(users, dimensions, device=device)
        self._decay = (1 + np.arange(history, dtype=np.float32)) ** np.float32(-options.decay)
        self._scores = np.zeros(0, np.float32)

    def resize(self, items: int) -> None:
        """Make room for `items` items."""
        if self.options.nearest:
            self._scores = np.zeros(max(items, len(self._scores)), np.float32)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        histories = self.histories.cpu().numpy()
        size = max(int(histories.max(initial=-1)), int(rows.max(initial=-1))) + 1
        self.histories = torch.from_numpy(closed_up(moved(rows, size)[histories])[0]).to(self.device)

    def apply(self, delta: MatrixFactorizationDelta) -> None:
        """Take in whose vectors were folded in again."""
        if self.options.nearest and delta.users:
            users = unpack_tensor(delta.users, np.int64, self.device)
            self.histories[users] = unpack_tensor(delta.histories, np.int64, self.device).view(len(users), -1)
            vectors = unpack_tensor(delta.user_vectors, np.float32, self.device).view(len(users), -1)
            self.vectors[users] = torch.nn.functional.normalize(vectors)

    def near(self, users: Sequence[str], queries: devices.Table, own: Rows) -> Rows:
        """The best items int64 [B, E] (-1 for none) of the people whose vectors are most like `queries` float32
        [B, dimensions]; without the `users`' own items int64 [B, H] (-1 for none)."""
        count = min(self.options.nearest, len(self.vectors))
        if not count:
            return np.empty((len(users), 0), np.int64)
        similar = devices.as_tensor(queries) @ self.vectors.T
        rows = np.array([crc32(user.encode()) for user in users], np.int64) % len(self.vectors)
        if devices.read_by_numba(self.device):
            arrays = similar.numpy(), rows, self.histories.numpy(), own
            return _near(*arrays, self._decay, self._scores, count, self.options.items)
        return self._near(similar, rows, own, count)

    def _near(self, similar: torch.Tensor, rows: Rows, own: Rows, count: int) -> Rows:
        """The torch version of `_near`, for a GPU."""
        at = torch.arange(len(rows), device=self.device)
        similar[at, torch.from_numpy(rows).to(self.device)] = 0
        weights, nearest = torch.topk(similar, count)
        histories = self.histories[nearest]
        said = weights.clamp(min=0)[..., None] * torch.from_numpy(self._decay).to(self.device)
        said = said.where(histories >= 0, 0)
        # A column more takes what is none.
        scores = torch.zeros(len(rows), len(self._scores) + 1, device=self.device)
        scores.scatter_add_(1, (histories % scores.shape[1]).flatten(1), said.flatten(1))
        scores.scatter_(1, torch.from_numpy(own).to(self.device) % scores.shape[1], 0)
        values, items = torch.topk(scores[:, :-1], min(self.options.items, len(self._scores)))
        return items.where(values > 0, -1).cpu().numpy()

    def snapshot(self) -> dict[str, bytes]:
        """The parameters as packed arrays."""
        return {
            "histories": pack_array(self.histories.cpu().numpy()),
            "vectors": pack_array(self.vectors.cpu().numpy()),
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`; with other bounds than it was written with it begins again."""
        histories, vectors = unpack_array(arrays["histories"], np.int64), unpack_array(arrays["vectors"], np.float32)
        if len(histories) == self.histories.numel() and len(vectors) == self.vectors.numel():
            self.histories = torch.from_numpy(histories).to(self.device).view_as(self.histories)
            self.vectors = torch.from_numpy(vectors).to(self.device).view_as(self.vectors)


@numba.njit("(f4[::1], i8[:], i8[:])", cache=True, nogil=True)
def _best(scores, items, found):  # type: ignore[no-untyped-def]
    """The items of the largest scores above 0, best first."""
    size = 0
    for item in items:
        score = scores[item]
        if score > 0 and (size < len(found) or score > scores[found[size - 1]]):
            place = min(size, len(found) - 1)
            while place > 0 and score > scores[found[place - 1]]:
                found[place] = found[place - 1]
                place -= 1
            found[place] = item
            size = min(size + 1, len(found))


@numba.njit("i8[:,::1](f4[:,::1], i8[::1], i8[:,::1], i8[:,:], f4[::1], f4[::1], i8, i8)", cache=True, nogil=True)
def _near(similar, rows, histories, own, decay, scores, count, limit):  # type: ignore[no-untyped-def]
    """`scores` is scratch, and 0 again at the end."""
    found = np.full((len(rows), limit), -1, np.int64)
    nearest, weights = np.empty(count, np.int64), np.empty(count, np.float32)
    every = np.arange(similar.shape[1])
    touched = np.empty(count * histories.shape[1], np.int64)
    for n in range(len(rows)):
        similar[n, rows[n]] = 0
        choose_largest(similar[n], every, weights, nearest)
        size = 0
        for place in range(count):
            if weights[place] > 0:
                for column in range(histories.shape[1]):
                    item = histories[nearest[place], column]
                    if item < 0:
                        break
                    if scores[item] == 0:
                        touched[size] = item
                        size += 1
                    scores[item] += weights[place] * decay[column]
        for item in own[n]:
            if item >= 0:
                scores[item] = 0
        _best(scores, touched[:size], found[n])
        for item in touched[:size]:
            scores[item] = 0
    return found
