"""Arrays as bytes, tensors that grow by rows, and rows whose used slots come first."""

import math
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """The array's elements in little-endian C order; shape and dtype are the reader's to know."""
    return np.ascontiguousarray(array).tobytes()


def unpack_array(packed: bytes, dtype: Any) -> npt.NDArray[Any]:
    """The inverse of `pack_array`, one-dimensional and writable."""
    return np.frombuffer(packed, dtype).copy()


def unpack_tensor(packed: bytes, dtype: Any, device: torch.device) -> torch.Tensor:
    """The same as a tensor on the device."""
    return torch.from_numpy(unpack_array(packed, dtype)).to(device)


@cache
def as_array(numbers: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """The numbers as float32, made once and not to be written to: as often as lists are made it would add up."""
    return np.array(numbers, np.float32)


def grown(tensor: torch.Tensor, rows: int, fill: float) -> torch.Tensor:
    """The tensor with at least `rows` rows; new ones hold `fill`.

    The rows are a view into storage that doubles, so that growing by one row at a time stays cheap.
    """
    size = len(tensor)
    if rows <= size:
        return tensor
    capacity = tensor.untyped_storage().nbytes() // max(tensor.element_size() * math.prod(tensor.shape[1:]), 1)
    if rows > capacity:
        larger = torch.full(
            (max(rows, 2 * size, 1024), *tensor.shape[1:]), fill, dtype=tensor.dtype, device=tensor.device
        )
        larger[:size] = tensor
        return larger[:rows]
    whole = torch.as_strided(tensor, (rows, *tensor.shape[1:]), tensor.stride())
    whole[size:] = fill
    return whole


@numba.njit("f4[:,::1](f4[::1], i8[:,:], f4)", cache=True, nogil=True)
def values_at(values, rows, by):  # type: ignore[no-untyped-def]
    """The `values` float32 [N] at `rows` int64 [B, C], divided `by` a number: float32 [B, C], 0 for -1."""
    found = np.empty(rows.shape, np.float32)
    for n in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            found[n, c] = values[rows[n, c]] / by if rows[n, c] >= 0 else 0
    return found


@numba.njit("i8(i8[::1], f4[::1], i8, i8, f4)", cache=True, nogil=True)
def put_among_best(items, scores, count, item, score):  # type: ignore[no-untyped-def]
    """Put the item among the first `count` of `items`, best first by their `scores`, behind those that score the same;
    where all places are taken, the last gives way, whatever it scores. Returns how many there are now."""
    place = min(count, len(items) - 1)
    while place > 0 and score > scores[place - 1]:
        items[place], scores[place] = items[place - 1], scores[place - 1]
        place -= 1
    items[place], scores[place] = item, score
    return min(count + 1, len(items))


def moved(rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Where each of `size` rows stands once only `rows` are kept, in that order; -1 for what is dropped, and, at the
    end, for row -1."""
    places = np.full(size + 1, -1, np.int64)
    places[rows] = np.arange(len(rows))
    return places


def closed_up(
    rows: npt.NDArray[np.int64], *others: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.float32]]]:
    """What is -1 in each row of `rows` goes to its end, the rest keeps its order; `others` follow, 0 there."""
    order = np.argsort(rows < 0, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, 1)
    return rows, [np.take_along_axis(other, order, 1) * (rows >= 0) for other in others]


def largest_of(values: npt.NDArray[np.float32], count: int, above: float = 0.0) -> npt.NDArray[np.int64]:
    """The places of the at most `count` largest values that are more than `above`, ascending; of equals, the lowest
    places."""
    # First, as most are often 0, and a partition takes long over what is equal.
    found = np.flatnonzero(values > above)
    if len(found) <= count:
        return found
    values = values[found]
    bound = np.partition(values, -count)[-count]
    larger, equal = found[values > bound], found[values == bound]
    return np.sort(np.concatenate([larger, equal[: count - len(larger)]]))


@numba.njit(["i8(i4[::1])", "i8(i8[::1])"], cache=True, nogil=True)
def used_slots(row):  # type: ignore[no-untyped-def]
    """How many slots of a row are used, which come first; a free one is -1. A loop over so many has no way out, and
    takes several at a time."""
    used, free = 0, len(row)
    while used < free:
        middle = (used + free) // 2
        if row[middle] < 0:
            free = middle
        else:
            used = middle + 1
    return used
