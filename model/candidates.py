"""From the scores of several models over the whole catalogue to the few items worth a closer look."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch

from model.arrays import as_array
from model.devices import Table, as_tensor, on_host

Indices = npt.NDArray[np.int64]
_BLOCK = 128
"""Columns whose maximum is looked at first on a GPU."""


class Candidates(NamedTuple):
    """`items` int64 [B, C], -1 where there are no more; `places` int64 [B, C], where the item stands in the user's own
    history (0 is newest), -1 where it does not; `shares` float32 [M + 1, B, C], each model's score as a share of its
    largest in the row, and last the prior."""

    items: Indices
    places: Indices
    shares: npt.NDArray[np.float32]


class Neighbourhoods(NamedTuple):
    """The scores above 0 that a model gives each of B users: from `bounds[n]` to `bounds[n + 1]` (int64 [B + 1]) stand
    the `items` int64 [S], each once, and `scores` float32 [S] of user n."""

    bounds: Indices
    items: Indices
    scores: npt.NDArray[np.float32]


class Asked(NamedTuple):
    """What the search is told of B users. `columns` int64 from `bounds[n]` to `bounds[n + 1]` are row n's forbidden
    columns; `own` int64 [B, H] are the histories, newest first, and `extra` int64 [B, E] are candidates whatever their
    scores; -1 is none in all three. `others` more are looked for."""

    columns: Indices
    bounds: Indices
    own: Indices
    extra: Indices
    others: int


def find_candidates(parts: Table, weights: tuple[float, ...], prior: Table, asked: Asked) -> Candidates:
    """The user's own items, the extra ones, and the others that are best by a fixed blend, in no order.

    `parts` float32 [M, B, N], left undefined: each model's scores, of which those below 0 count as 0; each row is
    divided by its maximum and weighted. `prior` float32 [N] is added for everybody; -inf makes an item no candidate of
    anybody.
    """
    if isinstance(parts, np.ndarray):
        arrays = (parts, as_array(weights), on_host(prior), *asked[:-1])
        return Candidates(*_find_candidates(*arrays, min(asked.others, parts.shape[2])))
    return _find_candidates_torch(parts, weights, as_tensor(prior), asked)


def find_candidates_among(
    known: Neighbourhoods,
    queries: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    learned: npt.NDArray[np.bool_],
    popular: Indices,
    weights: tuple[float, ...],
    prior: npt.NDArray[np.float32],
    asked: Asked,
) -> Candidates:
    """The same for two models without a look at the whole catalogue, on the CPU: among the items that the first model
    knows something of for the user, and the `popular` ones int64 [P]. The second model's scores are the products of
    `queries` float32 [B, D] and `vectors` float32 [N, D], where these are `learned` bool [N]. What is in neither, nor
    the user's own, nor extra, is no candidate, and a model's largest score is that among these."""
    # By torch: a scorer gives it one thread, where NumPy's product would take every core.
    of_popular = (torch.from_numpy(queries) @ torch.from_numpy(vectors[popular]).T).numpy()
    of_popular *= learned[popular]
    arrays = (queries, vectors, learned, popular, of_popular, as_array(weights), prior)
    return Candidates(*_find_among(*known, *arrays, *asked[:-1], min(asked.others, len(prior))))


def _find_candidates_torch(
    parts: torch.Tensor, weights: tuple[float, ...], prior: torch.Tensor, asked: Asked
) -> Candidates:
    """The torch version of `_find_candidates`, for a GPU."""
    columns, bounds, own, extra, count = asked
    device = parts.device
    largest = parts.amax(2).clamp_(min=1e-9)
    parts.clamp_(min=0)
    total = prior.expand_as(parts[0])
    for part, weight, most in zip(parts, weights, largest, strict=True):
        total = torch.addcmul(total, part, weight / most[:, None])
    rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[columns >= 0]
    forbidden = torch.from_numpy(columns[columns >= 0]).to(device)
    total[torch.from_numpy(rows).to(device), forbidden] = -torch.inf
    columns_of = []
    for given in (own, extra):
        mine = torch.from_numpy(given).to(device)
        at = torch.arange(len(mine), device=device)[:, None].expand_as(mine)
        repeated = (mine[:, :, None] == mine[:, None]).tril(-1).any(2)
        listed = (mine >= 0) & ~repeated & (total[at, mine.clamp(min=0)] > -torch.inf)
        total[at[mine >= 0], mine[mine >= 0]] = -torch.inf
        columns_of.append(mine.where(listed, -1))
    values, best = _largest_columns(total, min(count, total.shape[1]))
    items = torch.cat([*columns_of, best.where(values > -torch.inf, -1)], 1)
    places = torch.full_like(items, -1)
    newest = torch.arange(own.shape[1], device=device).expand_as(columns_of[0])
    places[:, : own.shape[1]] = newest.where(columns_of[0] >= 0, -1)
    known = items.clamp(min=0)
    shares = parts.gather(2, known.expand(len(parts), -1, -1)) / largest[..., None]
    shares = torch.cat([shares, prior[known][None]])
    shares = shares.where(items >= 0, 0)
    return Candidates(items.cpu().numpy(), places.cpu().numpy(), shares.cpu().numpy())


def _largest_columns(total: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The values and columns of each row's largest `count`: they are in the blocks of the largest maxima, so that what
    is long is read once."""
    blocks = total.shape[1] // _BLOCK
    if blocks <= 2 * count:
        return torch.topk(total, count)
    even = blocks * _BLOCK
    held = total[:, :even].view(len(total), blocks, _BLOCK)
    best = torch.topk(held.amax(2), count).indices
    columns = (best[..., None] * _BLOCK + torch.arange(_BLOCK, device=total.device)).flatten(1)
    rest = torch.arange(even, total.shape[1], device=total.device).expand(len(total), -1)
    columns = torch.cat([columns, rest], 1)
    values, places = torch.topk(total.gather(1, columns), count)
    return values, columns.gather(1, places)


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


@numba.njit("(f4[::1], i8[::1], f4[::1], i8[::1])", cache=True, nogil=True)
def choose_largest(total, rows, heap, chosen):  # type: ignore[no-untyped-def]
    """The places of the largest values, as many as `chosen` holds, in no order; of equals, those of the lowest of
    `rows`, which are the values' own; -inf is never chosen. `heap` then holds their values, -inf where there are no
    more, the least first."""
    heap[:] = -np.inf
    least, count = heap[0], len(heap)
    for item in range(len(total)):
        value = total[item]
        if value < least or value == -np.inf or (value == least and rows[item] > rows[chosen[0]]):
            continue
        n = 0
        while 2 * n + 1 < count:
            child = 2 * n + 1
            # The lesser of two, or of equals that of the higher row.
            if child + 1 < count and (
                heap[child + 1] < heap[child]
                or (
                    heap[child + 1] == heap[child]
                    and heap[child] > -np.inf
                    and rows[chosen[child + 1]] > rows[chosen[child]]
                )
            ):
                child += 1
            if heap[child] > value or (heap[child] == value and rows[chosen[child]] < rows[item]):
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
    heap, every = np.empty(count, np.float32), np.arange(size)
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
        choose_largest(total, every, heap, items[row, length:])
        for n in range(length + count):
            item = items[row, n]
            if item >= 0:
                for model in range(models):
                    shares[model, row, n] = max(parts[model, row, item], np.float32(0)) / largest[model]
                shares[models, row, n] = prior[item]
    return items, places, shares


@numba.njit("f4(f4[::1], f4[::1])", cache=True, nogil=True, fastmath={"nnan", "nsz", "contract", "reassoc"})
def _product(one, other):  # type: ignore[no-untyped-def]
    product = np.float32(0)
    for d in range(len(one)):
        product += one[d] * other[d]
    return product


@numba.njit(
    "Tuple((i8[:,::1], i8[:,::1], f4[:,:,::1]))(i8[::1], i8[::1], f4[::1], f4[:,::1], f4[:,::1], b1[::1], i8[::1], "
    "f4[:,::1], f4[::1], f4[::1], i8[::1], i8[::1], i8[:,:], i8[:,:], i8)",
    cache=True,
    nogil=True,
    fastmath={"nnan", "nsz", "contract", "reassoc"},
)
def _find_among(  # type: ignore[no-untyped-def]
    known_bounds, known, known_scores, queries, vectors, learned, popular, popular_scores, weights, prior, columns,
    bounds, own, extra, count,
):  # fmt: skip
    rows, length = len(own), own.shape[1] + extra.shape[1]
    items = np.full((rows, length + count), -1, np.int64)
    places = np.full((rows, length + count), -1, np.int64)
    shares = np.zeros((3, rows, length + count), np.float32)
    barred = np.max(bounds[1:] - bounds[:-1])
    heap, named = np.empty(count, np.float32), np.empty(length + barred, np.int64)
    most = len(popular) + len(named) + np.max(known_bounds[1:] - known_bounds[:-1])
    pool, total = np.empty(most, np.int64), np.empty(most, np.float32)
    first, second = np.empty(most, np.float32), np.empty(most, np.float32)
    # Of the pool's popular items, then the row's own, extra and forbidden ones, where they stand in it, and one more.
    place = np.zeros(len(prior), np.int32)
    pool[: len(popular)] = popular
    for n in range(len(popular)):
        place[popular[n]] = n + 1
    for row in range(rows):
        named[: own.shape[1]], named[own.shape[1] : length] = own[row], extra[row]
        last = length + bounds[row + 1] - bounds[row]
        named[length:last] = columns[bounds[row] : bounds[row + 1]]
        size = len(popular)
        second[:size] = popular_scores[row]
        for item in named[:last]:
            if item >= 0 and place[item] == 0:
                pool[size] = item
                second[size] = _product(queries[row], vectors[item]) if learned[item] else np.float32(0)
                size += 1
                place[item] = size
        first[:size] = 0
        sure = size
        for n in range(known_bounds[row], known_bounds[row + 1]):
            at = place[known[n]]
            if at > 0:
                first[at - 1] = known_scores[n]
            else:
                pool[size], first[size] = known[n], known_scores[n]
                size += 1
        for n in range(sure, size):
            second[n] = _product(queries[row], vectors[pool[n]]) if learned[pool[n]] else np.float32(0)
        scales = 1 / max(_largest(first[:size]), np.float32(1e-9)), 1 / max(_largest(second[:size]), np.float32(1e-9))
        for n in range(size):
            first[n] *= scales[0]
            second[n] = max(second[n], np.float32(0)) * scales[1]
            total[n] = weights[0] * first[n] + weights[1] * second[n]
        for n in range(size):
            total[n] += prior[pool[n]]
        for item in named[length:last]:
            if item >= 0:
                total[place[item] - 1] = -np.inf
        chosen = items[row]
        for n in range(length):
            at = place[named[n]] - 1 if named[n] >= 0 else -1
            if at >= 0 and total[at] > -np.inf:
                chosen[n], total[at] = at, -np.inf
                if n < own.shape[1]:
                    places[row, n] = n
        choose_largest(total[:size], pool[:size], heap, chosen[length:])
        for n in range(len(popular), sure):
            place[pool[n]] = 0
        for n in range(length + count):
            at = chosen[n]
            if at >= 0:
                item = chosen[n] = pool[at]
                shares[0, row, n], shares[1, row, n], shares[2, row, n] = first[at], second[at], prior[item]
    return items, places, shares
