"""Where tensors are, whose code reads them there, and what a GPU does in another way than a CPU."""

from functools import cache

import numpy as np
import numpy.typing as npt
import torch

Table = torch.Tensor | npt.NDArray[np.float32]
"""What scores are made of: an array where numba reads it, else a tensor. For one person, making the one of the other
and back would cost as much as a model's scores."""


def pick_device(name: str) -> torch.device:
    """The named torch device; `auto` is a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)


@cache
def read_by_numba(device: torch.device) -> bool:
    """Whether a scorer reads its tensors with the loops that numba compiles, as on a CPU, or with torch's operations,
    as on a GPU. Both give the same scores, and of items that score the same either may be chosen; tests let a CPU take
    the GPU's way."""
    return device.type == "cpu"


def on_host(table: Table) -> npt.NDArray[np.float32]:
    """The table as an array."""
    return table if isinstance(table, np.ndarray) else table.cpu().numpy()


def as_tensor(table: Table) -> torch.Tensor:
    """The table as a tensor, which shares the memory of an array."""
    return torch.from_numpy(table) if isinstance(table, np.ndarray) else table


class SumTable:
    """Sums by row, for a batch: a table of zeros that stays on the device, so that a sum costs what is added and read,
    and not the table's size."""

    def __init__(self, device: torch.device) -> None:
        self._zeros = torch.zeros(0, device=device)

    def read(self, size: int, rows: torch.Tensor, values: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """What `values` float32 [B, S] add up to by their `rows` int64 [B, S] from 0 to below `size`, at the rows
        `asked` int64 [B, A]: float32 [B, A]."""
        self._zeros = with_room(self._zeros, len(rows) * size)
        table = self._zeros[: len(rows) * size].view(len(rows), size)
        table.scatter_add_(1, rows, values)
        try:
            return table.gather(1, asked)
        finally:
            # Also where the memory did not suffice: who is asked for next is not to find them.
            table.scatter_(1, rows, 0)


def with_room(scratch: torch.Tensor, cells: int) -> torch.Tensor:
    """The tensor if it holds so many cells, or zeros in its place, with some room for new items."""
    return scratch if len(scratch) >= cells else torch.zeros(cells + cells // 8, device=scratch.device)
