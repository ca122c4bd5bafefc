"""Time-decayed popularity: what people without history get.

Source: Cormode et al., "Forward decay: a practical time decay model for streaming systems", ICDE 2009, section 3: each
event weighs exp(rate * (t - landmark)), so that sums do not depend on the order of events.
"""

import math
from dataclasses import dataclass

import msgspec
import numba
import numpy as np
import torch

from model import devices
from model.arrays import grown, pack_array, unpack_array, unpack_tensor, values_at
from model.batch import Batch, Rows, Weights

_MAX_EXPONENT = 40.0


@dataclass(frozen=True)
class PopularityOptions:
    """`half_life_ms`: the event time in which an interaction loses half its weight."""

    half_life_ms: float = 14 * 86_400_000.0


class PopularityDelta(msgspec.Struct, array_like=True):
    """The landmark (epoch ms), and the changed items int64 with their sums float32."""

    landmark: int
    items: bytes
    sums: bytes


class Popularity:
    """`sums` float32 [N]: the decayed number of interactions of each item, relative to `landmark`; `largest` of them,
    and the `rate` of the decay, a millisecond. On a CPU `array` is the same memory as `sums`."""

    name = "popularity"

    def __init__(self, options: PopularityOptions, device: torch.device) -> None:
        self.device = device
        self.sums = torch.empty(0, device=device)
        self.landmark = 0
        self.largest = 0.0
        self.rate = math.log(2) / options.half_life_ms
        self._bind()

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self.sums = grown(self.sums, items, 0)
        self._bind()

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        self.sums = self.sums[torch.from_numpy(rows).to(self.device)]
        self.largest = float(self.sums.max()) if len(rows) else 0.0
        self._bind()

    def _bind(self) -> None:
        """Name the CPU's tensor as an array, once: doing so for each event would cost as much as the kernel."""
        if self.device.type == "cpu":
            self.array = self.sums.numpy()

    def learn(self, batch: Batch) -> PopularityDelta:
        """Add the batch's interactions."""
        return self.add(batch.items, batch.event_index, batch.timestamps)

    def add(self, histories: Rows, at: Rows, times: Rows) -> PopularityDelta:
        """Add the item in column `at` int64 [B], -1 for none, of each of the `histories` int64 [B, H], taken at `times`
        int64 [B], in epoch milliseconds."""
        newest = _newest(at, times)
        if newest < 0:
            return PopularityDelta(self.landmark, b"", b"")
        if self.landmark == 0 or (newest - self.landmark) * self.rate > _MAX_EXPONENT:
            self._move_landmark(newest)
        targets, changed, largest = _add(histories, at, times, self.landmark, self.rate, self.array)
        self.largest = max(self.largest, largest)
        return PopularityDelta(self.landmark, pack_array(targets), pack_array(changed))

    def replace(self, sums: Weights) -> PopularityDelta:
        """Take undecayed sums float32 [N] that were made elsewhere in the place of what was learned."""
        self.array[: len(sums)] = sums
        self.largest = float(self.array.max(initial=0))
        return PopularityDelta(self.landmark, pack_array(np.arange(len(sums))), pack_array(sums))

    def _move_landmark(self, landmark: int) -> None:
        if self.landmark:
            self.sums *= math.exp((self.landmark - landmark) * self.rate)
            self.largest = float(self.sums.max())
        self.landmark = landmark

    def apply(self, delta: PopularityDelta) -> None:
        """Follow the learner."""
        if delta.landmark != self.landmark:
            self._move_landmark(delta.landmark)
        sums = unpack_array(delta.sums, np.float32)
        self.largest = max(self.largest, float(sums.max(initial=0)))
        self.sums[unpack_tensor(delta.items, np.int64, self.device)] = torch.from_numpy(sums).to(self.device)

    def shares_of(self, items: Rows) -> Weights:
        """The sum of each of `items` int64 [B, C] as a share of the largest: float32 [B, C], 0 for -1. On the CPU."""
        return values_at(self.array, items, max(self.largest, 1e-30))

    def score(self, weight: float) -> devices.Table:
        """Scores float32 [N]: the share of the most popular item's, times `weight`."""
        scale = weight / max(self.largest, 1e-30)
        if devices.read_by_numba(self.device):
            return self.array * np.float32(scale)
        return self.sums * scale

    def snapshot(self) -> dict[str, bytes]:
        """The parameters as packed arrays."""
        return {"sums": pack_array(self.sums.cpu().numpy()), "landmark": str(self.landmark).encode()}

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`."""
        self.sums = unpack_tensor(arrays["sums"], np.float32, self.device)
        self.largest = float(self.sums.max()) if len(self.sums) else 0.0
        self._bind()
        self.landmark = int(arrays["landmark"])


@numba.njit("i8(i8[::1], i8[::1])", cache=True)
def _newest(at, times):  # type: ignore[no-untyped-def]
    """The newest time at which something was taken, -1 where nothing was."""
    newest = -1
    for n in range(len(at)):
        if at[n] >= 0:
            newest = max(newest, times[n])
    return newest


@numba.njit("Tuple((i8[::1], f4[::1], f4))(i8[:,:], i8[::1], i8[::1], i8, f8, f4[::1])", cache=True)
def _add(histories, at, times, landmark, rate, sums):  # type: ignore[no-untyped-def]
    """Add the item at `at` of each history. Returns the items, some twice, their new sums, and the largest of these."""
    targets, size = np.empty(len(at), np.int64), 0
    for n in range(len(at)):
        if at[n] >= 0:
            targets[size] = histories[n, at[n]]
            sums[targets[size]] += np.exp(max((times[n] - landmark) * rate, -_MAX_EXPONENT))
            size += 1
    changed = sums[targets[:size]]
    return targets[:size], changed, changed.max()
