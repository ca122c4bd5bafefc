"""Snapshots as arrays: what every model learns from and scores for."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, cycle
from typing import Any

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from model.item_index import ItemIndex
from model.snapshot import Snapshot

Rows = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


class Batch(msgspec.Struct, frozen=True):
    """Histories of B users, padded to the longest, to one item at least.

    `items` int64 [B, H], newest first, -1 where there is none; `weights` float32 [B, H], 0 where there is none;
    `types` uint8 [B, H], the index of the type of each item's last event; `event_index` int64 [B], the column of the
    event's own item or -1; `timestamps` int64 [B], epoch milliseconds; `users` the B user ids; `events` how many events
    each has; `repeated` bool [B], whether the event's item was in the history before; `counts`, `ages` and
    `gaps` uint8 [B, H] of the items, as in the snapshot; `erased` bool [B], whether the event was the user's wish to be
    forgotten.
    """

    items: Rows
    weights: Weights
    types: npt.NDArray[np.uint8]
    event_index: Rows
    timestamps: Rows
    users: list[str]
    events: list[int]
    repeated: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.uint8]
    ages: npt.NDArray[np.uint8]
    erased: npt.NDArray[np.bool_]
    gaps: npt.NDArray[np.uint8]


def batch_of(items: Rows, users: Sequence[str] = (), repeated: npt.NDArray[np.bool_] | None = None) -> Batch:
    """Events of which nothing is known but the histories `items` int64 [B, H] that they left, the newest of them their
    own: each taken once, by nobody in particular where no `users` are given."""
    size = len(items)
    none, zeros = np.zeros(items.shape, np.uint8), np.zeros(size, np.int64)
    flags = zeros > 0
    seen = flags if repeated is None else repeated
    people = list(users) or [""] * size
    weights = (items >= 0).astype(np.float32)
    return Batch(items, weights, none, zeros, zeros, people, [1] * size, seen, none, none, flags, none)


def to_batch(snapshots: Sequence[Snapshot], index: ItemIndex, learn: bool) -> Batch:
    """Turn snapshots into arrays; with `learn` unknown items get a row and counts and ages stay 0, without it unknown
    items are left out (-1)."""
    histories = [snapshot.history for snapshot in snapshots]
    ids = list(chain.from_iterable(histories))
    rows = index.rows(ids)
    if learn and -1 in rows:
        ends = accumulate(map(len, histories))
        unknown = (range(end - 1, end - len(history) - 1, -1) for end, history in zip(ends, histories, strict=True))
        # In the order in which the items came: by events, and of a history the oldest first.
        index.extend(ids[place] for place in chain.from_iterable(unknown) if rows[place] < 0)
        rows = index.rows(ids)
    lengths = list(map(len, histories))
    items = _rows_of(np.array(rows, np.int64), lengths, -1)
    weights = _rows_of(np.array(list(chain.from_iterable(s.weights for s in snapshots)), np.float32), lengths, 0)
    said = [s.types for s in snapshots] + [s.gaps for s in snapshots]
    if not learn:
        # The learner is spared what only lists are made of.
        said += [s.counts for s in snapshots] + [s.ages for s in snapshots]
    # Snapshots that were packed before they had all of these wait in savepoints.
    told = [one or bytes(length) for one, length in zip(said, cycle(lengths), strict=False)]
    joined = np.frombuffer(bytearray().join(told), np.uint8)
    names = 2 if learn else 4
    tables = _rows_of(joined, lengths * names, 0).reshape(names, *items.shape)
    if learn:
        counts = ages = np.zeros(items.shape, np.uint8)
    else:
        counts, ages = tables[2], tables[3]
        if -1 in rows:
            weights[items < 0] = 0
    numbers = np.array([[s.event_index for s in snapshots], [s.event_timestamp for s in snapshots]], np.int64)
    flags = np.array([[s.repeated for s in snapshots], [s.erased for s in snapshots]], np.bool_)
    return Batch(
        items,
        weights,
        tables[0],
        numbers[0],
        numbers[1],
        [s.user_id for s in snapshots],
        [s.profile_version for s in snapshots],
        flags[0],
        counts,
        ages,
        flags[1],
        tables[1],
    )


def _rows_of(values: npt.NDArray[Any], lengths: list[int], none: int) -> npt.NDArray[Any]:
    """Of each user in turn so many `values`, one user a row, at least one column; `none` where there are no more."""
    if len(set(lengths)) == 1 and lengths[0]:
        # As those of one person always are: nothing is to copy.
        return values.reshape(len(lengths), -1)
    return _padded(values, np.array(lengths, np.int64), none)


def parts_of(batch: Batch, first: int, step: int) -> Iterator[Batch]:
    """The batch in parts that end with its `first`-th interaction, and with each `step`-th after that; the last part
    may end sooner."""
    begin, due, size = 0, first, len(batch.event_index)
    if size <= max(first, 0) or (taught := np.cumsum(batch.event_index >= 0))[-1] <= first:
        yield batch
        return
    while begin < size:
        end = int(np.searchsorted(taught, due)) + 1
        places = slice(begin, end)
        yield Batch(**{name: getattr(batch, name)[places] for name in Batch.__struct_fields__})
        begin, due = end, due + step


@numba.njit(
    ["i8[:,::1](i8[::1], i8[::1], i8)", "f4[:,::1](f4[::1], i8[::1], i8)", "u1[:,::1](u1[::1], i8[::1], i8)"],
    cache=True,
    nogil=True,
)
def _padded(values, lengths, none):  # type: ignore[no-untyped-def]
    longest = 1
    for length in lengths:
        longest = max(longest, length)
    rows = np.full((len(lengths), longest), none, values.dtype)
    begin = 0
    for n in range(len(lengths)):
        rows[n, : lengths[n]] = values[begin : begin + lengths[n]]
        begin += lengths[n]
    return rows
