"""What weighing clicks by how seldom their place is seen is worth: a shop with known tastes and known eyes.

People see place p of a list with the chance (1 + p)^-1, so the lists' own clicks favour what stood high. Their tastes
are known here, so a list is measured against what the person would take of the whole catalogue, seen or not.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.quality import K
from jobs.settings import load_settings
from model.blend import Recommender
from model.exposure import Exposure
from model.learned_blend import LearnedBlend
from model.profile import Profile, apply_event, snapshot
from model.snapshot import Snapshot
from schema.event import Event

_PEOPLE, _ITEMS, _TASTES, _FIRST, _ROUNDS, _SEEDS = 300, 400, 8, 5, 30, 3
Floats = npt.NDArray[np.float64]


def run(_data: Path) -> dict[str, dict[str, float]]:
    """A row with the correction and one without: `gain`, the mean over all lists of the second half of what the person
    would take of them, by place, as a share of the best possible list's (nDCG of the true chances); `clicks` a list;
    and, of the last place, how often it is `seen` and what is `estimated` of that from impressions."""
    rows = {}
    for name, corrected in (("as they come", False), ("by how seldom seen", True)):
        found = [_simulated(corrected, seed) for seed in range(_SEEDS)]
        rows[name] = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
    return rows


def _simulated(corrected: bool, seed: int) -> dict[str, float]:
    settings, chance = load_settings(), np.random.default_rng(seed)
    options = settings.blend_options()
    options = replace(options, learned=replace(options.learned, position_bias=corrected), device="cpu")
    profile_options = replace(settings.profile_options(), exclude="seen")
    affinity = chance.normal(size=(_PEOPLE, _TASTES)) @ chance.normal(size=(_TASTES, _ITEMS)) / np.sqrt(_TASTES)
    affinity += chance.normal(size=_ITEMS)
    recommender, blend, exposure = Recommender(options), LearnedBlend(options.learned), Exposure(K)
    blend.exposure = exposure
    profiles = [Profile() for _ in range(_PEOPLE)]
    events = 0

    def take(person: int, item: int, place: int) -> None:
        nonlocal events
        events += 1
        event = Event(f"e{events}", f"u{person}", "view", 1_600_000_000_000 + 1000 * events, f"i{item}")
        outcome = apply_event(profiles[person], event, profile_options)
        after = snapshot(profiles[person], event, outcome, 0, profile_options)
        recommender.feedback(after, blend, place)
        recommender.learn([after])
        latest[person] = after

    latest: dict[int, Snapshot] = {}
    for person in range(_PEOPLE):
        for item in chance.choice(_ITEMS, _FIRST, replace=False, p=_softmax(affinity[person])):
            take(person, int(item), -1)
    gains, clicks, seen_last = [], 0, 0
    eyes = 1 / (1 + np.arange(K))
    for n in range(_ROUNDS):
        for person in range(_PEOPLE):
            (ranked,) = recommender.recommend([latest[person]], K, blend)
            items = np.array([int(item[1:]) for item in ranked.item_ids])
            tastes = affinity[person].copy()
            tastes[[int(item[1:]) for item in latest[person].excluded]] = -np.inf
            if n >= _ROUNDS // 2:
                gains.append(_gain(_softmax(tastes), items))
            seen = np.flatnonzero(chance.random(len(items)) < eyes[: len(items)])
            for place in seen:
                exposure.observe(int(place), first=bool(place == seen[0]))
            seen_last += K - 1 in seen
            # Whoever likes none of what they saw takes nothing.
            logits = np.append(affinity[person][items[seen]], 1.0)
            taken = chance.choice(len(logits), p=_softmax(logits))
            if taken < len(seen):
                clicks += 1
                take(person, int(items[seen[taken]]), int(seen[taken]))
    lists = _ROUNDS * _PEOPLE
    estimated = exposure.seen[-1] / exposure.lists
    return {
        "gain": float(np.mean(gains)),
        "clicks": clicks / lists,
        "seen": seen_last / lists,
        "estimated": float(estimated),
    }


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum())


def _gain(chances: Floats, items: npt.NDArray[np.int64]) -> float:
    """nDCG of the list by true chances."""
    discount = 1 / np.log2(2 + np.arange(len(items)))
    return float((chances[items] * discount).sum() / (np.sort(chances)[::-1][: len(items)] * discount).sum())
