"""What the linear item model costs at catalogues of 1,000, 10,000 and 100,000 items: all of them, or the densest."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from model.batch import Batch
from model.linear_item_model import LinearItemModel, LinearItemModelOptions

CATALOGUES, SLOTS = (1_000, 10_000, 100_000), (1024, 2048, 4096)
USERS, EVENTS, HISTORY, BATCH, SEED = 2_000, 50_000, 50, 500, 7


def run(data: Path) -> dict[str, dict[str, float]]:  # noqa: ARG001
    """For each catalogue and number of slots, after 50,000 interactions of 2,000 people, items by a Zipf law of
    exponent 1: microseconds to count an interaction, milliseconds of one solution, microseconds to score 100 candidates
    of a history of 50, megabytes of the Gram matrix, and the share of interactions whose item has a slot. One thread.
    """
    torch.set_num_threads(1)
    sizes = [(items, slots) for items in CATALOGUES for slots in SLOTS if slots == SLOTS[0] or slots <= items]
    return {f"{items:,} items, {slots:,} slots": _measure(items, slots) for items, slots in sizes}


def _measure(catalogue: int, slots: int) -> dict[str, float]:
    random = np.random.default_rng(SEED)
    popularity = 1 / np.arange(1, catalogue + 1)
    items = random.choice(catalogue, EVENTS, p=popularity / popularity.sum())
    model = LinearItemModel(LinearItemModelOptions(slots=slots, first=EVENTS + 1), torch.device("cpu"))
    model.resize(catalogue)
    histories: list[list[int]] = [[] for _ in range(USERS)]
    starts, users = range(0, EVENTS, BATCH), random.integers(0, USERS, EVENTS).tolist()
    batches = [_batch(items[n : n + BATCH].tolist(), users[n : n + BATCH], histories) for n in starts]
    counting, batch = sum(_seconds(partial(model.learn, batch)) for batch in batches), batches[-1]
    solutions = [_seconds(model._solve) for _ in range(3)]
    candidates = random.integers(0, catalogue, (BATCH, 100))
    scoring = [_seconds(lambda: model.score_candidates(batch.items, batch.weights, candidates)) for _ in range(3)]
    held = np.isin(items, model.items.numpy()).mean()
    return {
        "count, us": counting / EVENTS * 1e6,
        "solve, ms": median(solutions) * 1e3,
        "score, us": median(scoring) / BATCH * 1e6,
        "Gram, MB": slots**2 * 4 / 2**20,
        "share with a slot": float(held),
    }


def _batch(items: list[int], users: list[int], histories: list[list[int]]) -> Batch:
    """The interactions, each with its user's newest items after it."""
    rows = np.full((len(items), HISTORY), -1, np.int64)
    repeated = np.zeros(len(items), np.bool_)
    for n, (item, user) in enumerate(zip(items, users, strict=True)):
        repeated[n] = item in histories[user]
        histories[user] = [item, *(other for other in histories[user] if other != item)][:HISTORY]
        rows[n, : len(histories[user])] = histories[user]
    zeros = np.zeros(len(items), np.int64)
    weights = (rows >= 0).astype(np.float32)
    types = rows.astype(np.uint8)
    return Batch(rows, weights, types, zeros, zeros, [""] * len(items), [1] * len(items), repeated, types, types)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
