"""Our lists beside those of the libraries that people would take instead: one protocol, one run, one table."""

import math
import multiprocessing
import os
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
from threadpoolctl import threadpool_limits

from bench.peers import Implicit, Peer, Popularity, River, SessionNeighbours
from cli.common import progress
from cli.evaluate import read_events
from cli.movielens import events as movielens_events
from cli.movielens import write_csv
from jobs.settings import load_settings
from model.blend import BlendOptions, Recommender
from model.evaluate import Report, evaluate
from model.profile import Profile, apply_event, snapshot
from schema.event import Event

K, SPLIT_K = 20, 10
TAOBAO = Path("../shared/data/taobao-userbehavior.csv")
SEEDS = (42, 1, 2, 3)
ALONE = {
    "headrace, co-occurrence alone": ("next", (1.0, 0.0, 1e-6)),
    "headrace, linear model alone": ("any", (1.0, 0.0, 1e-6)),
    "headrace, factorisation alone": ("next", (0.0, 1.0, 1e-6)),
}
"""The horizon and the weights of the fixed blend, whose order stays where nothing is learned of it."""
DIVERSITIES, _DIVERSE = (0.1, 0.3), "headrace, diversity "
NEIGHBOURS = "headrace, user neighbours too"
RIVER_LISTS = 50
"""river scores item by item in Python: of so many events one gets a list, on the small catalogue only."""


def run(data: Path) -> dict[str, dict[str, float]]:
    """A row for each model and data set. Prequential, last half of the events, 20 places: nDCG and hit of all events,
    nDCG of those whose item is new to the user and of users with one or two items before, coverage, Gini, and events/s
    (processes run side by side); and nDCG of each quarter of the stream. The rows `split` are of the split of
    microsoft/recommenders: nDCG@10, the mean of four seeds.
    """
    files = {"movielens": write_csv(data), "shop": TAOBAO, "shop, seen left out": TAOBAO}
    for name, file in list(files.items()):
        if not file.exists():
            progress.print(f"{name} left out: no file {file}")
            del files[name]
    peers = ["headrace", "popularity", "implicit cosine", "implicit als"]
    alone = [*peers, *ALONE, "session neighbours"]
    tasks = [(name, str(file), peer) for name, file in files.items() for peer in alone]
    tasks += [("movielens", str(files["movielens"]), NEIGHBOURS)]
    tasks += [("movielens", str(files["movielens"]), "river")]
    tasks += [("movielens", str(files["movielens"]), f"{_DIVERSE}{share}") for share in DIVERSITIES]
    splits = [(peer, seed, str(data)) for peer in peers for seed in SEEDS]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(_prequential, *zip(*tasks, strict=True)))
        on_split = list(pool.map(_on_split, *zip(*splits, strict=True)))
    table = {f"{name}: {peer}": row for (name, _, peer), row in zip(tasks, rows, strict=True)}
    for peer in peers:
        found = [score for (of, _, _), score in zip(splits, on_split, strict=True) if of == peer]
        table[f"split: {peer}"] = {f"ndcg@{SPLIT_K}": mean(found)}
    return table


def alone(options: BlendOptions, source: str) -> BlendOptions:
    """The options with which one of `ALONE` makes the lists."""
    horizon, weights = ALONE[source]
    fixed, unexplored = replace(options.learned, learning_rate=0.0), replace(options.content, share=0.0)
    return replace(options, horizon=horizon, weights=weights, learned=fixed, content=unexplored)


def _peer(name: str) -> Peer:
    if name == "popularity":
        return Popularity()
    if name == "session neighbours":
        return SessionNeighbours()
    if name == "river":
        return River()
    # It takes threads where others run beside it, and warns of its own conversions.
    threadpool_limits(1, "blas")
    warnings.simplefilter("ignore")
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender

    if name == "implicit cosine":
        return Implicit(lambda: CosineRecommender(K=200, num_threads=1))
    return Implicit(
        lambda: AlternatingLeastSquares(
            factors=64, regularization=30.0, alpha=4.0, iterations=10, num_threads=1, random_state=1
        )
    )


def _prequential(data: str, file: str, peer: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    events, catalogue = read_events(Path(file))
    exclude_seen = data != "shop"
    if peer.startswith("headrace"):
        settings = load_settings()
        blend = settings.blend_options()
        if peer in ALONE:
            blend = alone(blend, peer)
        elif peer == NEIGHBOURS:
            blend = replace(blend, user_neighbours=replace(blend.user_neighbours, nearest=50))
        elif peer.startswith(_DIVERSE):
            blend = replace(blend, diversity=float(peer.removeprefix(_DIVERSE)))
        options = settings.profile_options(), blend
        report = evaluate(events, K, exclude_seen, *options, catalogue=catalogue)
        return row_of(report)
    return row_of(replay(_peer(peer), events, exclude_seen, RIVER_LISTS if peer == "river" else 1))


def row_of(report: Report) -> dict[str, float]:
    """The report as a row of the table."""
    kinds = {"": report.all, "new ": report.new, "light ": report.light}
    row = {f"{name}ndcg@20": scores.means()["ndcg"] for name, scores in kinds.items()}
    row |= {"hit@20": report.all.means()["hit"], "coverage": report.coverage, "gini": report.gini}
    quarters = {f"q{n}": scores.means()["ndcg"] for n, scores in enumerate(report.quarters, 1)}
    return row | {"events/s": report.events_per_second} | quarters


def replay(peer: Peer, events: list[Event], exclude_seen: bool, step: int) -> Report:
    """Test then train, a list for every `step`-th event. The rate is that of the last half, as if every event had got
    one."""
    report, listed, taken = Report(), Counter[str](), Counter[str]()
    seen: defaultdict[str, set[str]] = defaultdict(set)
    listing, started, half = 0.0, 0.0, len(events) // 2
    for number, event in enumerate(events):
        if number == half:
            listing, started = 0.0, time.perf_counter()
        if event.item_id is None:
            continue
        before = seen[event.user_id]
        if number % step == 0:
            asked = time.perf_counter()
            items = peer.recommend(event.user_id, before if exclude_seen else (), K)
            listing += time.perf_counter() - asked
            rank = items.index(event.item_id) if event.item_id in items else None
            report.add(number, len(events), event, before, taken[event.item_id], rank)
            if number >= half:
                listed.update(items)
        taken[event.item_id] += event.item_id not in before
        before.add(event.item_id)
        peer.learn(event.user_id, event.item_id)
    report.events_per_second = (len(events) - half) / (time.perf_counter() - started + (step - 1) * listing)
    report.spread(listed, len(set().union(*seen.values())))
    return report


def stratified_split(items: list[str], ratio: float, seed: int) -> list[bool]:
    """Whether each rating is in the training part: of every item a share of `ratio`, at random.

    Source: `python_stratified_split` of microsoft/recommenders with `filter_by="item"`: numpy's legacy generator, one
    draw a row in the file's order, and of each item the rows of the smallest draws, their number rounded half to even.
    """
    draws = np.random.RandomState(seed).rand(len(items))
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row in np.argsort(draws):
        rows[items[row]].append(int(row))
    train = [False] * len(items)
    for of_item in rows.values():
        for row in of_item[: round(ratio * len(of_item))]:
            train[row] = True
    return train


def _on_split(peer: str, seed: int, data: str) -> float:
    import torch

    torch.set_num_threads(1)
    # In the file's order, then in time order for the stream.
    ratings = sorted(movielens_events(Path(data)), key=lambda row: int(row["event_id"].removeprefix("ml-")))
    train = stratified_split([row["item_id"] for row in ratings], 0.75, seed)
    stream = sorted((r for r, taken in zip(ratings, train, strict=True) if taken), key=lambda r: r["timestamp"])
    held: defaultdict[str, set[str]] = defaultdict(set)
    for row, taken in zip(ratings, train, strict=True):
        if not taken:
            held[row["user_id"]].add(row["item_id"])
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for row in stream:
        seen[row["user_id"]].append(row["item_id"])
    lists = _ours_on_split(stream) if peer == "headrace" else _peer_on_split(_peer(peer), stream, seen)
    gains = []
    for user, items in lists.items():
        if user in held:
            best = sum(1 / math.log2(n + 2) for n in range(min(SPLIT_K, len(held[user]))))
            found = sum(1 / math.log2(n + 2) for n, item in enumerate(items) if item in held[user])
            gains.append(found / best)
    return mean(gains)


def _ours_on_split(stream: list[dict[str, object]]) -> dict[str, list[str]]:
    """Lists for any time, by whole histories."""
    settings = load_settings()
    profile_options = replace(
        settings.profile_options(), max_interactions=1000, max_items=1000, history_length=1000, exclude="seen"
    )
    recommender = Recommender(replace(settings.blend_options(), horizon="any", device="cpu"))
    profiles: defaultdict[str, Profile] = defaultdict(Profile)
    last = {}
    for row in stream:
        event = Event(**row)  # type: ignore[arg-type]
        outcome = apply_event(profiles[event.user_id], event, profile_options)
        last[event.user_id] = snapshot(profiles[event.user_id], event, outcome, 0, profile_options)
        recommender.learn([last[event.user_id]])
    lists = recommender.recommend(list(last.values()), SPLIT_K)
    return {user: ranked.item_ids for user, ranked in zip(last, lists, strict=True)}


def _peer_on_split(peer: Peer, stream: list[dict[str, object]], seen: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same of a peer, which is fitted once, to the whole training part."""
    for row in stream:
        peer.learn(str(row["user_id"]), str(row["item_id"]))
    if isinstance(peer, Implicit):
        peer.fit()
    return {user: peer.recommend(user, items, SPLIT_K) for user, items in seen.items()}
