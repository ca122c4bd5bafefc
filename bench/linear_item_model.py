"""What the linear item model costs at catalogues of 1,000, 10,000 and 100,000 items, dense and sparse."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from model.batch import Batch, batch_of, parts_of
from model.cooccurrence import Cooccurrence, CooccurrenceOptions
from model.linear_item_model import LinearItemModel, LinearItemModelOptions

CATALOGUES, DENSE = (1_000, 10_000, 100_000), (2048, 4096)
USERS, EVENTS, HISTORY, BATCH, SEED = 2_000, 50_000, 50, 500, 7


def run(data: Path) -> dict[str, dict[str, float]]:  # noqa: ARG001
    """For each catalogue and form, after 50,000 interactions of 2,000 people, items by a Zipf law of exponent 1:
    microseconds an interaction for counting and for solving, the longest pause for a solution in milliseconds,
    microseconds to score 100 candidates of a history of 50, megabytes of what is kept, and the share of interactions
    whose item is solved for. One thread. Dense, a catalogue has as many items as slots at most; sparse, the pairs are
    those that co-occurrence counts anyway.
    """
    torch.set_num_threads(1)
    sizes = [(items, items) for items in (CATALOGUES[0], *DENSE)] + [(items, 0) for items in CATALOGUES]
    return {f"{items:,} {'dense' if slots else 'sparse'}": _measure(items, slots) for items, slots in sizes}


def _measure(catalogue: int, slots: int) -> dict[str, float]:
    random = np.random.default_rng(SEED)
    popularity = 1 / np.arange(1, catalogue + 1)
    items = random.choice(catalogue, EVENTS, p=popularity / popularity.sum())
    cooccurrence = Cooccurrence(CooccurrenceOptions(), torch.device("cpu"))
    model = LinearItemModel(LinearItemModelOptions(slots=slots), torch.device("cpu"))
    for one in (cooccurrence, model):
        one.resize(catalogue)
    histories: list[list[int]] = [[] for _ in range(USERS)]
    users = random.integers(0, USERS, EVENTS).tolist()
    counting: list[float] = []
    solving: list[float] = []
    for start in range(0, EVENTS, BATCH):
        batch = _batch(items[start : start + BATCH].tolist(), users[start : start + BATCH], histories)
        for part in parts_of(batch, model.to_step, model.options.step):
            cooccurrence.learn(part)
            before = len(model._solved_items), model._due
            seconds = _seconds(partial(model.learn, part, cooccurrence))
            solved = before != (len(model._solved_items), model._due)
            (solving if solved else counting).append(seconds)
    candidates = random.integers(0, catalogue, (BATCH, 100))
    scoring = [_seconds(lambda: model.score_candidates(batch.items, batch.weights, candidates)) for _ in range(3)]
    known = np.flatnonzero((model.predictors[:, 0] >= 0).numpy()) if model.sparse else model.items.numpy()
    dense, sparse = (torch.from_numpy(model._gram), model.weights), (model.predictors, model.predictor_weights)
    return {
        "count, us": sum(counting) / EVENTS * 1e6,
        "solve, us": sum(solving) / EVENTS * 1e6,
        "longest, ms": max(solving) * 1e3,
        "score, us": median(scoring) / BATCH * 1e6,
        "MB": sum(table.numel() * table.element_size() for table in (sparse if model.sparse else dense)) / 2**20,
        "share solved": float(np.isin(items, known).mean()),
    }


def _batch(items: list[int], users: list[int], histories: list[list[int]]) -> Batch:
    """The interactions, each with its user's newest items after it."""
    rows = np.full((len(items), HISTORY), -1, np.int64)
    repeated = np.zeros(len(items), np.bool_)
    for n, (item, user) in enumerate(zip(items, users, strict=True)):
        repeated[n] = item in histories[user]
        histories[user] = [item, *(other for other in histories[user] if other != item)][:HISTORY]
        rows[n, : len(histories[user])] = histories[user]
    return batch_of(rows, repeated=repeated)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
