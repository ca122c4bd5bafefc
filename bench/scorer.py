"""What a list costs the scorer by the size of the catalogue, what it loses by not looking at all of it, and how far its
reading is from the memory's own speed."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from jobs.settings import load_settings
from model.batch import to_batch
from model.blend import BlendOptions, Recommender
from model.delta import CatalogueChange
from model.learned_blend import LearnedBlend
from model.profile import Profile, apply_event, snapshot
from model.snapshot import Snapshot
from schema.event import Event

SIZES, K, SEED = (10_000, 100_000, 1_000_000), 20, 7
EVENTS, USERS, TASTES = 200_000, 20_000, 200
_REPEATS = 5


def run(data: Path, device: str = "cpu") -> dict[str, dict[str, float]]:  # noqa: ARG001
    """A row for each size of the catalogue, after `EVENTS` views by `USERS` people of a few tastes each: microseconds a
    list, in batches of 64 people, or 256 on a GPU (the least of a few repetitions); the same with the whole catalogue
    scored, on the CPU; which share of that one's top 20 is on the list (`recall`); and `roofline`, the bytes that a
    list must read over its time, as a share of a plain copy's bytes over its time. On a GPU, which always scores the
    whole catalogue, `cpu_us_a_list` is what the same lists take on the CPU beside it, and `gpu_us_a_list` for how much
    of its time the GPU works (torch's profiler)."""
    torch.set_num_threads(1)
    options = replace(load_settings().blend_options(), device=device, max_items=2 * max(SIZES))
    rows = {f"{size:,} items": _measure(size, options) for size in SIZES}
    least, most = (rows[f"{size:,} items"]["us_a_list"] for size in (SIZES[0], SIZES[-1]))
    return {**rows, "growth": {"us_a_list": most / least}}


def _measure(size: int, options: BlendOptions) -> dict[str, float]:
    on_gpu = options.device != "cpu"
    events, batch = _events(size), 256 if on_gpu else 64
    learner, blend = Recommender(replace(options, device="cpu")), LearnedBlend(options.learned)
    learner.learn([], [CatalogueChange(f"i{item}", True) for item in range(size)])
    for n in range(0, len(events), 256):
        learner.learn(events[n : n + 256])
    # What people take next teaches the order, as in the job.
    for n in range(len(events) - 4096, len(events), 256):
        for event in events[n : n + 256]:
            learner.feedback(event, blend)
        learner.recommend(events[n : n + 256], K, blend)
    newest = list({event.user_id: event for event in reversed(events)}.values())[: 4 * batch]
    packed = blend.pack()
    batches = [newest[n : n + batch] for n in range(0, len(newest), batch)]

    def lists(recommender: Recommender, whole: bool = False, repeats: int = _REPEATS) -> tuple[list[list[str]], float]:
        among = 2 * size if whole else options.whole_catalogue
        recommender.options = replace(recommender.options, whole_catalogue=among)
        least = float("inf")
        for _ in range(repeats):
            same = LearnedBlend.unpack(packed, options.learned)
            started = time.perf_counter()
            found = [ranked for part in batches for ranked in recommender.recommend(part, K, same)]
            least = min(least, time.perf_counter() - started)
        return [ranked.item_ids for ranked in found], 1e6 * least / len(newest)

    exact, whole_us = lists(learner, whole=True, repeats=1 if on_gpu else _REPEATS)
    found, time_us = lists(learner)
    beside: dict[str, float] = {}
    if on_gpu:
        scorer = Recommender.unpack(learner.pack(), options)
        beside["cpu_us_a_list"] = time_us
        found, time_us = lists(scorer)
        beside["gpu_us_a_list"] = _gpu_us(lambda: lists(scorer, repeats=1)) / len(newest)
    shared = [len(set(one) & set(other)) / len(other) for one, other in zip(found, exact, strict=True) if other]
    learner.options = options
    read = _bytes_read(learner, newest, batch)
    return {
        "us_a_list": time_us,
        "whole_catalogue_us": whole_us,
        **beside,
        "recall": float(np.mean(shared)),
        "bytes_a_list": read,
        "roofline": read / time_us / _copied_bytes_a_us(read * batch, options.device),
    }


def _events(size: int) -> list[Snapshot]:
    """Views in time order: each person has four of `TASTES`, each a stretch of the catalogue with its own Zipf law, as
    the catalogue as a whole has one; a tenth of the views is of anything."""
    random = np.random.default_rng(SEED)
    tastes = random.integers(0, TASTES, (USERS, 4))
    users = random.integers(0, USERS, EVENTS)
    taste = np.where(random.random(EVENTS) < 0.1, random.integers(0, TASTES, EVENTS), tastes[users, users % 4])
    taste = np.where(random.random(EVENTS) < 0.5, tastes[users, random.integers(0, 4, EVENTS)], taste)
    stretch = size // TASTES
    shares = 1 / np.arange(1, stretch + 1)
    items = taste * stretch + random.choice(stretch, EVENTS, p=shares / shares.sum())
    options, profiles = load_settings().profile_options(), dict[int, Profile]()
    found = []
    for n, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        event = Event(str(n), f"u{user}", "view", 1_600_000_000_000 + n, f"i{item}")
        profile = profiles.setdefault(user, Profile())
        outcome = apply_event(profile, event, options)
        found.append(snapshot(profile, event, outcome, event.timestamp, options))
    return found


def _bytes_read(recommender: Recommender, events: list[Snapshot], people: int) -> float:
    """What a list must read of the model, in bytes, on average: of the person's items the neighbours with their weights
    and damping; of each item that goes with them, and of the popular, the vector and the prior; of each candidate the
    neighbours with both weights, and its predictors. Of a small catalogue, or on a GPU, the whole item matrix once a
    batch of so many `people` and each score three times."""
    batch = to_batch(events, recommender.index, learn=False)
    cooccurrence, vector = recommender.cooccurrence, 4 * recommender.options.factorization.dimensions
    neighbours = (cooccurrence.neighbours >= 0).sum(1).cpu().numpy()
    of_own = np.where(batch.items >= 0, neighbours[batch.items], 0).sum(1)
    candidates = (batch.items >= 0).sum(1) + recommender.options.learned.candidates
    typical = float(np.mean(of_own) / max(np.mean((batch.items >= 0).sum(1)), 1))
    predictors = 12 * recommender.options.linear.predictors
    ranking = float(np.mean(candidates)) * (12 * typical + predictors)
    if recommender.options.device != "cpu" or len(recommender.index) <= recommender.options.whole_catalogue:
        scores = 3 * 2 * 4 * len(recommender.index)
        return float(np.mean(of_own)) * 8 + scores + vector * len(recommender.index) / people + ranking
    known = np.diff(cooccurrence.neighbourhoods(batch.items, batch.weights).bounds)
    return float(np.mean(of_own)) * 12 + float(np.mean(known)) * (vector + 8) + ranking


def _gpu_us(work: Callable[[], object]) -> float:
    """For how many microseconds the GPU works."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    return float(sum(kernels.self_device_time_total for kernels in profiled.key_averages()))


def _copied_bytes_a_us(size: float, device: str) -> float:
    """Bytes that a copy of an array of `size` bytes reads and writes in a microsecond."""
    array = torch.ones(int(size) // 4, device=device)
    copy, least = torch.empty_like(array), float("inf")
    for _ in range(20):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        copy.copy_(array)
        if device != "cpu":
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - started)
    return 2 * size / 1e6 / least


if __name__ == "__main__":
    print(json.dumps(run(Path())))
