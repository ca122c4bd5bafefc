"""From the scores of several models to the k best items of each user."""

import numba
import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]
Ranked = tuple[npt.NDArray[np.float32], Indices, Indices]


def rank(
    parts: torch.Tensor, weights: tuple[float, ...], prior: torch.Tensor, columns: Indices, bounds: Indices, k: int
) -> Ranked:
    """Blend the models' scores and keep the best.

    `parts` float32 [M, B, N], left undefined: each model's scores, of which those below 0 count as 0; each row is
    divided by its maximum and weighted. `prior` float32 [N] is added for everybody; -inf keeps an item off all lists,
    and `columns` int64 from `bounds[n]` to `bounds[n + 1]` are row n's own forbidden columns (-1 for none). Returns
    scores float32, items int64 and the part with the largest share int64 (M for the prior), all [B, k], best first;
    the score is -inf where there are no more items.
    """
    k = min(k, parts.shape[2])
    if parts.device.type == "cpu":
        return _rank(parts.numpy(), np.array(weights, np.float32), prior.numpy(), columns, bounds, k)
    return _rank_torch(parts, weights, prior, columns, bounds, k)


def _rank_torch(
    parts: torch.Tensor, weights: tuple[float, ...], prior: torch.Tensor, columns: Indices, bounds: Indices, k: int
) -> Ranked:
    """The torch version of `_rank`, for a GPU; of equal scores either may come first."""
    parts.clamp_(min=0)
    parts *= torch.tensor(weights, device=parts.device)[:, None, None] / parts.amax(2, keepdim=True).clamp(min=1e-9)
    total = parts.sum(0).add_(prior)
    rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[columns >= 0]
    forbidden = torch.from_numpy(columns[columns >= 0]).to(parts.device)
    total[torch.from_numpy(rows).to(parts.device), forbidden] = -torch.inf
    values, best = torch.topk(total, k)
    shares = torch.cat([parts.gather(2, best.expand(len(parts), -1, -1)), prior[best][None]])
    return values.cpu().numpy(), best.cpu().numpy(), shares.argmax(0).cpu().numpy()


@numba.njit(
    "Tuple((f4[:,::1], i8[:,::1], i8[:,::1]))(f4[:,:,::1], f4[::1], f4[::1], i8[::1], i8[::1], i8)",
    cache=True,
    nogil=True,
    fastmath={"nnan", "nsz", "contract"},
)
def _rank(parts, weights, prior, columns, bounds, k):  # type: ignore[no-untyped-def]
    models, rows, items = parts.shape
    values = np.full((rows, k), -np.inf, np.float32)
    best = np.zeros((rows, k), np.int64)
    sources = np.zeros((rows, k), np.int64)
    total = np.empty(items, np.float32)
    scales = np.empty(models, np.float32)
    for row in range(rows):
        total[:] = prior
        for model in range(models):
            part = parts[model, row]
            largest = np.float32(1e-9)
            for item in range(items):
                largest = max(largest, part[item])
            scales[model] = weights[model] / largest
            for item in range(items):
                total[item] += max(part[item], np.float32(0)) * scales[model]
        for n in range(bounds[row], bounds[row + 1]):
            if columns[n] >= 0:
                total[columns[n]] = -np.inf
        for item in range(items):
            if total[item] > values[row, k - 1]:
                place = k - 1
                while place > 0 and total[item] > values[row, place - 1]:
                    values[row, place], best[row, place] = values[row, place - 1], best[row, place - 1]
                    place -= 1
                values[row, place], best[row, place] = total[item], item
        for place in range(k):
            item = best[row, place]
            largest = prior[item]
            sources[row, place] = models
            for model in range(models):
                share = parts[model, row, item] * scales[model]
                if share > largest:
                    largest = share
                    sources[row, place] = model
    return values, best, sources
