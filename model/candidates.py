"""From the scores of several models over the whole catalogue to the few items worth a closer look."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]


class Candidates(NamedTuple):
    """`items` int64 [B, C], -1 where there are no more; `places` int64 [B, C], where the item stands in the user's own
    history (0 is newest), -1 where it does not; `shares` float32 [M + 1, B, C], each model's score as a share of its
    largest in the row, and last the prior."""

    items: Indices
    places: Indices
    shares: npt.NDArray[np.float32]


def find_candidates(
    parts: torch.Tensor,
    weights: tuple[float, ...],
    prior: torch.Tensor,
    columns: Indices,
    bounds: Indices,
    own: Indices,
    extra: Indices,
    count: int,
) -> Candidates:
    """The user's own items, the `extra` ones, and the `count` others that are best by a fixed blend, in no order.

    `parts` float32 [M, B, N], left undefined: each model's scores, of which those below 0 count as 0; each row is
    divided by its maximum and weighted. `prior` float32 [N] is added for everybody; -inf makes an item no candidate of
    anybody, and `columns` int64 from `bounds[n]` to `bounds[n + 1]` are row n's own forbidden columns (-1 for none).
    `own` int64 [B, H] are the histories, newest first, and `extra` int64 [B, E] are candidates whatever their
    scores, -1 for none in both.
    """
    if parts.device.type == "cpu":
        arrays = (parts.numpy(), np.array(weights, np.float32), prior.numpy(), columns, bounds, own, extra)
        return Candidates(*_find_candidates(*arrays, min(count, parts.shape[2])))
    return _find_candidates_torch(parts, weights, prior, columns, bounds, own, extra, count)


def _find_candidates_torch(
    parts: torch.Tensor,
    weights: tuple[float, ...],
    prior: torch.Tensor,
    columns: Indices,
    bounds: Indices,
    own: Indices,
    extra: Indices,
    count: int,
) -> Candidates:
    """The torch version of `_find_candidates`, for a GPU."""
    device = parts.device
    parts.clamp_(min=0)
    parts /= parts.amax(2, keepdim=True).clamp(min=1e-9)
    total = torch.einsum("mbn,m->bn", parts, torch.tensor(weights, device=device)) + prior
    rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[columns >= 0]
    forbidden = torch.from_numpy(columns[columns >= 0]).to(device)
    total[torch.from_numpy(rows).to(device), forbidden] = -torch.inf
    columns_of = []
    for given in (own, extra):
        mine = torch.from_numpy(given).to(device)
        at = torch.arange(len(mine), device=device)[:, None].expand_as(mine)
        listed = (mine >= 0) & (total[at, mine.clamp(min=0)] > -torch.inf)
        total[at[mine >= 0], mine[mine >= 0]] = -torch.inf
        columns_of.append(mine.where(listed, -1))
    values, best = torch.topk(total, min(count, total.shape[1]))
    items = torch.cat([*columns_of, best.where(values > -torch.inf, -1)], 1)
    places = torch.full_like(items, -1)
    newest = torch.arange(own.shape[1], device=device).expand_as(columns_of[0])
    places[:, : own.shape[1]] = newest.where(columns_of[0] >= 0, -1)
    known = items.clamp(min=0)
    shares = torch.cat([parts.gather(2, known.expand(len(parts), -1, -1)), prior[known][None]])
    shares = shares.where(items >= 0, 0)
    return Candidates(items.cpu().numpy(), places.cpu().numpy(), shares.cpu().numpy())


@numba.njit("f4(f4[::1])", cache=True, nogil=True)
def _largest(values):  # type: ignore[no-untyped-def]
    """The largest value above 0, else 0. Of such floats the bits are in the same order, and integers are compared
    several at a time, which numba does not do with floats."""
    bits, largest = values.view(np.int32), np.zeros(1, np.int32)
    for n in range(len(bits)):
        largest[0] = max(largest[0], bits[n])
    return largest.view(np.float32)[0]


@numba.njit("(f4[::1], f4, f4[::1])", cache=True, nogil=True, fastmath={"nnan", "nsz", "contract"})
def _add(values, scale, total):  # type: ignore[no-untyped-def]
    for n in range(len(total)):
        total[n] += max(values[n], np.float32(0)) * scale


@numba.njit("(f4[::1], f4[::1], i8[::1])", cache=True, nogil=True)
def choose_largest(total, heap, chosen):  # type: ignore[no-untyped-def]
    """The items of the largest values, as many as `chosen` holds, in no order; -inf is never chosen. `heap` then holds
    their values, -inf where there are no more, the least first."""
    heap[:] = -np.inf
    least, count = heap[0], len(heap)
    for item in range(len(total)):
        value = total[item]
        if value > least:
            n = 0
            while 2 * n + 1 < count:
                child = 2 * n + 1
                if child + 1 < count and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[n], chosen[n] = heap[child], chosen[child]
                n = child
            heap[n], chosen[n] = value, item
            least = heap[0]


@numba.njit(
    "Tuple((i8[:,::1], i8[:,::1], f4[:,:,::1]))(f4[:,:,::1], f4[::1], f4[::1], i8[::1], i8[::1], i8[:,:], i8[:,:], i8)",
    cache=True,
    nogil=True,
    fastmath={"nnan", "nsz", "contract"},
)
def _find_candidates(parts, weights, prior, columns, bounds, own, extra, count):  # type: ignore[no-untyped-def]
    models, rows, size = parts.shape
    length = own.shape[1] + extra.shape[1]
    items = np.full((rows, length + count), -1, np.int64)
    places = np.full((rows, length + count), -1, np.int64)
    shares = np.zeros((models + 1, rows, length + count), np.float32)
    total = np.empty(size, np.float32)
    largest = np.empty(models, np.float32)
    heap = np.empty(count, np.float32)
    for row in range(rows):
        for item in range(size):
            total[item] = prior[item]
        for model in range(models):
            largest[model] = max(_largest(parts[model, row]), np.float32(1e-9))
            _add(parts[model, row], weights[model] / largest[model], total)
        for n in range(bounds[row], bounds[row + 1]):
            if columns[n] >= 0:
                total[columns[n]] = -np.inf
        for place in range(own.shape[1]):
            item = own[row, place]
            if item >= 0 and total[item] > -np.inf:
                items[row, place], places[row, place] = item, place
                total[item] = -np.inf
        for n in range(extra.shape[1]):
            item = extra[row, n]
            if item >= 0 and total[item] > -np.inf:
                items[row, own.shape[1] + n] = item
                total[item] = -np.inf
        choose_largest(total, heap, items[row, length:])
        for n in range(length + count):
            item = items[row, n]
            if item >= 0:
                for model in range(models):
                    shares[model, row, n] = max(parts[model, row, item], np.float32(0)) / largest[model]
                shares[models, row, n] = prior[item]
    return items, places, shares
