"""A person's list, and where each of its entries comes from."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec
import numba
import numpy as np

from model.arrays import as_array
from model.batch import Rows, Weights
from model.candidates import Candidates

# After the models that have shares of the candidates.
_HISTORY, _CONTENT, _RELATION, _SEQUENCE, _NEW = range(5)


class RankedList(msgspec.Struct):
    """A user's list, best first: item ids, scores (the chance of being taken next, among the candidates) to five
    decimals, where each item comes from (the user's own history, the model that gives most for it, "sequence" where no
    other would have thought of it, or "new" where chance put a new item there), and which item of the history leads to
    it by co-occurrence, or where it is there for its content or a relation by that, None where none does or none is
    asked for; and, where chance put it there, with which `propensities`, else None. `segment` is that of the person,
    None where it is not known, and `rules` which of the shop's rules touched each entry, None where none holds, and
    `experiments` the person's arms. `shared` is what an item that is there for its content has in common with that
    which led to it, as `model.content.Content.shared` says it, None where there is none such."""

    item_ids: list[str]
    scores: list[float]
    sources: list[str]
    because: list[str | None]
    propensities: list[float | None]
    segment: int | None = None
    rules: list[list[str]] | None = None
    experiments: dict[str, str] | None = None
    shared: list[str | None] | None = None


class Origins(NamedTuple):
    """Of the K entries of B lists the `items` int64 [B, K], -1 for none; the `sources` int64 [B, K], which are places
    among the names of the models that have shares of the candidates, followed by those of history, content, relations,
    the sequence model and chance; and of which items co-occurrence, content and relations are to say what led to them,
    `asked` int64 [3, B, K], -1 where they are not."""

    items: Rows
    sources: Rows
    asked: Rows


def origins_of(
    candidates: Candidates,
    weights: tuple[float, ...],
    signals: Weights,
    likeliest: slice,
    others: int,
    columns: Rows,
    propensities: Weights,
    explain: bool,
) -> Origins:
    """Where the entries in the `columns` int64 [B, K] of the candidates come from, -1 for none.

    The fixed blend gives each model's shares its `weights`, the last of them 1. The `signals` float32 [S, B, C] end
    with the scores of content, of embeddings, of the sequence model and of relations. The columns `likeliest` hold what
    the sequence model looked for, and those from `others` on what the fixed blend did: only the sequence model has
    thought of what the blend has below all these. Chance has put an entry there where its `propensities` float32
    [B, K] are above 0. Of what is merely popular, or was in the history, no other item is the cause.
    """
    given = as_array((*weights, 1))
    bounds = likeliest.start, likeliest.stop, others
    return Origins(*_origins(*candidates, given, signals, *bounds, columns, propensities, explain))


def ranked_lists(
    origins: Origins,
    leading: Rows,
    histories: Rows,
    chances: Weights,
    propensities: Weights,
    names: Sequence[str],
    ids: Sequence[str],
    shared: Callable[[int, int], str | None],
) -> Iterator[RankedList]:
    """The lists. Entries were led to by the columns `leading` int64 [B, K] of the `histories` int64 [B, H], -1 for
    none. `names` are the sources', `ids` the items', and `shared` says what an item has in common with another."""
    # All users' lists at once, then cut: a call for each would cost more than what it does.
    found = _entries(*origins, leading, histories, chances, propensities)
    entries, scores, alike, drawn, lengths, led = found
    rows, of_names, causes = entries.tolist()
    items = list(map(ids.__getitem__, rows))
    sources = list(map(names.__getitem__, of_names))
    because = [None if cause < 0 else ids[cause] for cause in causes]
    by_chance: list[float | None] = [None] * len(items)
    for place in drawn.nonzero()[0].tolist():
        by_chance[place] = round(float(drawn[place]), 9)
    in_common: list[str | None] = [None] * len(items)
    for place in alike.nonzero()[0].tolist():
        in_common[place] = shared(rows[place], causes[place])
    listed_scores = scores.tolist()
    ends = accumulate(lengths.tolist(), initial=0)
    for (begin, end), by_content in zip(pairwise(ends), led.tolist(), strict=True):
        part = slice(begin, end)
        ranked = RankedList(items[part], listed_scores[part], sources[part], because[part], by_chance[part])
        if by_content:
            ranked.shared = in_common[part]
        yield ranked


@numba.njit(
    "Tuple((i8[:,::1], i8[:,::1], i8[:,:,::1]))(i8[:,:], i8[:,:], f4[:,:,:], f4[::1], f4[:,:,:], i8, i8, i8, "
    "i8[:,:], f4[:,:], b1)",
    cache=True,
    nogil=True,
)
def _origins(  # type: ignore[no-untyped-def]
    items, places, shares, weights, signals, likeliest, likeliest_end, others, columns, propensities, explain
):
    models, rows, size = shares.shape
    listed = np.full(columns.shape, -1, np.int64)
    sources = np.zeros(columns.shape, np.int64)
    asked = np.full((3, *columns.shape), -1, np.int64)
    content, embedding, relation = len(signals) - 4, len(signals) - 3, len(signals) - 1
    for row in range(rows):
        least = np.float32(np.inf)
        if likeliest < likeliest_end:
            for column in range(others, size):
                total = np.float32(0)
                for model in range(models):
                    total += shares[model, row, column] * weights[model]
                least = min(least, total if items[row, column] >= 0 else np.float32(-np.inf))
        for k in range(columns.shape[1]):
            column = columns[row, k]
            if column < 0:
                continue
            listed[row, k] = items[row, column]
            source, most, total = 0, np.float32(-np.inf), np.float32(0)
            for model in range(models):
                share = shares[model, row, column] * weights[model]
                total += share
                if share > most:
                    source, most = model, share
            # What nothing speaks for but what the shop says of it.
            if most <= 0 and signals[relation, row, column] > 0:
                source = models + _RELATION
            elif most <= 0 and (signals[content, row, column] > 0 or signals[embedding, row, column] > 0):
                source = models + _CONTENT
            if likeliest <= column < likeliest_end and total < least:
                source = models + _SEQUENCE
            if places[row, column] >= 0:
                source = models + _HISTORY
            if propensities[row, k] > 0:
                source = models + _NEW
            sources[row, k] = source
            if explain:
                # The last of the models is the prior.
                if source < models - 1:
                    of = 0
                elif source == models + _CONTENT or source == models + _NEW:
                    of = 1
                elif source == models + _RELATION:
                    of = 2
                else:
                    continue
                asked[of, row, k] = listed[row, k]
    return listed, sources, asked


@numba.njit(
    "Tuple((i8[:,:], f8[::1], b1[::1], f4[::1], i8[::1], b1[::1]))"
    "(i8[:,::1], i8[:,::1], i8[:,:,::1], i8[:,:], i8[:,:], f4[:,:], f4[:,:])",
    cache=True,
    nogil=True,
)
def _entries(items, sources, asked, leading, histories, chances, propensities):  # type: ignore[no-untyped-def]
    """All lists' entries, one after another: item, source, cause or -1, score, whether content led to it, propensity;
    and of each list how many entries it has, and whether content led to one."""
    entries, scores = np.empty((3, items.size), np.int64), np.empty(items.size)
    by_content, drawn = np.zeros(items.size, np.bool_), np.empty(items.size, np.float32)
    lengths, led, size = np.zeros(len(items), np.int64), np.zeros(len(items), np.bool_), 0
    for n in range(len(items)):
        for k in range(items.shape[1]):
            if items[n, k] >= 0:
                cause = histories[n, leading[n, k]] if leading[n, k] >= 0 else -1
                entries[0, size], entries[1, size], entries[2, size] = items[n, k], sources[n, k], cause
                drawn[size] = propensities[n, k]
                scores[size] = np.rint(np.float64(chances[n, k]) * 1e5) / 1e5
                by_content[size] = asked[1, n, k] >= 0 and leading[n, k] >= 0
                led[n] |= by_content[size]
                size += 1
                lengths[n] += 1
    return entries[:, :size], scores[:size], by_content[:size], drawn[:size], lengths, led
