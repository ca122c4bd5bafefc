"""How many interactions a process learns a second, beside the online fits of other libraries."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from cli.evaluate import read_events
from cli.movielens import write_csv
from jobs.settings import load_settings
from model.blend import Recommender
from model.delta import pack_delta
from model.profile import Profile, apply_event, snapshot
from schema.event import Event

WARM, TIMED, BATCH = 40_000, 5_120, 256


def run(data: Path) -> dict[str, dict[str, float]]:
    """Interactions/s of each on one thread, on MovieLens-100k in time order: after the first `WARM` were learned, the
    next `TIMED` in micro-batches of `BATCH`. Each learns a stream as its documentation says: rtrec by `fit` with
    `update_interaction`, implicit by the partial fits of a batch's users and items. `ratio` is ours over the best of
    the others, and `bytes` of an interaction in the delta that each scorer gets."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    events = [event for event in read_events(write_csv(data))[0] if event.item_id is not None][: WARM + TIMED]
    batches = [events[n : n + BATCH] for n in range(WARM, len(events), BATCH)]
    rates = {}
    with threadpool_limits(1, "blas"):
        delta_bytes: list[int] = []
        learners: dict[str, Callable[..., Iterator[None]]] = {
            "headrace": partial(_headrace, delta_bytes=delta_bytes),
            "rtrec SLIM": _rtrec_slim,
            "rtrec LightFM": _rtrec_lightfm,
        }
        learners["implicit ALS"] = _implicit_als
        for name, learner in learners.items():
            times = learner(events[:WARM], batches)
            next(times)
            started = time.perf_counter()
            for _ in times:
                pass
            rates[name] = TIMED / (time.perf_counter() - started)
    best = max(rate for name, rate in rates.items() if name != "headrace")
    rows = {name: {"interactions_per_second": rate} for name, rate in rates.items()}
    rows["headrace"]["bytes"] = sum(delta_bytes) / TIMED
    return {**rows, "ratio": {"interactions_per_second": rates["headrace"] / best}}


def _headrace(first: Sequence[Event], batches: Sequence[Sequence[Event]], delta_bytes: list[int]) -> Iterator[None]:
    """Learns `first`, yields, then yields after each batch, whose delta's size it tells. Profiles are the profile
    operator's work, not counted."""
    settings = load_settings()
    options, profiles = settings.profile_options(), dict[str, Profile]()

    def snapshots(events: Sequence[Event]) -> list[Any]:
        found = []
        for event in events:
            profile = profiles.setdefault(event.user_id, Profile())
            outcome = apply_event(profile, event, options)
            found.append(snapshot(profile, event, outcome, 0, options))
        return found

    recommender = Recommender(settings.blend_options())
    before, taken = snapshots(first), [snapshots(batch) for batch in batches]
    for n in range(0, len(before), BATCH):
        recommender.learn(before[n : n + BATCH])
    yield
    for batch in taken:
        # Packed as for the scorers, which is the learner's work too.
        delta_bytes.append(len(pack_delta(recommender.learn(batch))))
        yield


def _rtrec_slim(first: Sequence[Event], batches: Sequence[Sequence[Event]]) -> Iterator[None]:
    from rtrec.models import SLIM

    return _rtrec(SLIM(), first, batches)


def _rtrec_lightfm(first: Sequence[Event], batches: Sequence[Sequence[Event]]) -> Iterator[None]:
    from rtrec.models import LightFM

    return _rtrec(LightFM(no_components=64), first, batches)


def _rtrec(model: Any, first: Sequence[Event], batches: Sequence[Sequence[Event]]) -> Iterator[None]:
    def rows(events: Sequence[Event]) -> list[tuple[str, str | None, float, float]]:
        return [(event.user_id, event.item_id, event.timestamp / 1000, 1.0) for event in events]

    model.fit(rows(first), progress_bar=False)
    yield
    for batch in batches:
        model.fit(rows(batch), update_interaction=True, progress_bar=False)
        yield


def _implicit_als(first: Sequence[Event], batches: Sequence[Sequence[Event]]) -> Iterator[None]:
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import lil_matrix

    everything = [*first, *(event for batch in batches for event in batch)]
    users = {user: n for n, user in enumerate(dict.fromkeys(event.user_id for event in everything))}
    items = {item: n for n, item in enumerate(dict.fromkeys(event.item_id for event in everything))}
    # Rows that can be written to, by users and by items; a fit takes those that it needs as a sparse matrix.
    by_user, by_item = (
        lil_matrix((len(users), len(items)), dtype="f4"),
        lil_matrix((len(items), len(users)), dtype="f4"),
    )

    def take(events: Sequence[Event]) -> tuple[Any, Any]:
        of = np.array([(users[event.user_id], items[event.item_id]) for event in events])
        for user, item in of:
            by_user[user, item] += 1
            by_item[item, user] += 1
        return np.unique(of[:, 0]), np.unique(of[:, 1])

    take(first)
    model = AlternatingLeastSquares(factors=64, iterations=3, num_threads=1, random_state=1)
    model.fit(by_user.tocsr(), show_progress=False)
    yield
    for batch in batches:
        of_users, of_items = take(batch)
        model.partial_fit_users(of_users, by_user[of_users].tocsr())
        model.partial_fit_items(of_items, by_item[of_items].tocsr())
        yield
