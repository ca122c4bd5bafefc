"""Prequential evaluation: for each event take the user's list, test it against the event, then learn from the event.

Source: Gama, Sebastião, Rodrigues, "On evaluating stream learning algorithms", Machine Learning 90, 2013 (predictive
sequential, test-then-train).
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from model.blend import BlendOptions, Recommender
from model.delta import CatalogueChange, Steering, change_of
from model.learned_blend import LearnedBlend
from model.profile import Profile, ProfileOptions, apply_event, erasure, plain_properties, snapshot
from model.snapshot import Snapshot
from schema.event import Event
from schema.item import Item
from schema.recommendation import default_user


@dataclass
class Scores:
    """Sums over the tested events of one kind."""

    events: int = 0
    hit: float = 0.0
    ndcg: float = 0.0
    mrr: float = 0.0

    def add(self, rank: int | None) -> None:
        """Add one event whose item stood at `rank` (0 is best), or on no place of the list."""
        self.events += 1
        if rank is not None:
            self.hit += 1
            self.ndcg += 1 / math.log2(rank + 2)
            self.mrr += 1 / (rank + 1)

    def means(self) -> dict[str, float]:
        """events, hit, ndcg and mrr, the last three as means."""
        n = max(self.events, 1)
        return {"events": self.events, "hit": self.hit / n, "ndcg": self.ndcg / n, "mrr": self.mrr / n}


@dataclass
class Report:
    """What `evaluate` found over the last half of the events: accuracy by kind of event, the share of the known items
    that were on a list, and how unequally the places on lists fell to the items (0 all alike, 1 all to one). `new` are
    items new to the person, `first` a person's first five items, `light` is of people with one or two before, `heavy`
    with 50 or more, and `cold` of items that fewer than five people had taken. `quarters` are all events, of each
    quarter of the stream."""

    all: Scores = field(default_factory=Scores)
    new: Scores = field(default_factory=Scores)
    carts_and_purchases: Scores = field(default_factory=Scores)
    light: Scores = field(default_factory=Scores)
    first: Scores = field(default_factory=Scores)
    heavy: Scores = field(default_factory=Scores)
    cold: Scores = field(default_factory=Scores)
    quarters: list[Scores] = field(default_factory=lambda: [Scores() for _ in range(4)])
    coverage: float = 0.0
    gini: float = 0.0
    events_per_second: float = 0.0

    def add(self, number: int, events: int, event: Event, before: set[str], taken: int, rank: int | None) -> None:
        """Add the event `number` of so many, whose user had the items `before`, and whose item so many people had
        `taken` and stood at `rank`."""
        self.quarters[4 * number // events].add(rank)
        if number >= events // 2:
            self.all.add(rank)
            if event.item_id not in before:
                self.new.add(rank)
            if event.event_type in ("add_to_cart", "purchase"):
                self.carts_and_purchases.add(rank)
            if 1 <= len(before) <= 2:
                self.light.add(rank)
            if len(before) < 5:
                self.first.add(rank)
            if len(before) >= 50:
                self.heavy.add(rank)
            if taken < 5:
                self.cold.add(rank)

    def spread(self, listed: Counter[str], known: int) -> None:
        """Set coverage and Gini by how often each item was `listed`, of so many that are `known`."""
        self.coverage = len(listed) / max(known, 1)
        self.gini = gini([*listed.values()] + [0] * (known - len(listed)))


@dataclass(frozen=True)
class Freshness:
    """When the model has learned from an event, and when the user's profile shows it: at the next full `model_ms` or
    `profile_ms` of event time. 0 is at once; infinity is at once in the first half and never in the second."""

    model_ms: float = 0.0
    profile_ms: float = 0.0


def evaluate(
    events: list[Event],
    k: int,
    exclude_seen: bool,
    profile_options: ProfileOptions,
    options: BlendOptions,
    on_list: Callable[[int, Event, list[str]], Any] | None = None,
    catalogue: Mapping[str, Item] = MappingProxyType({}),
    freshness: Freshness = Freshness(),
    steering: Sequence[Steering] = (),
) -> Report:
    """Replay `events`, which must be in time order, through the model of the job.

    `on_list` hears of every event with its index and the list before learning. What `catalogue` says of an item is
    known from when it was created, and at the latest from its first event on; who is erased is forgotten, and the
    shop's `steering` holds from the first event. A list never depends on a later event. The weights of the learned
    blend follow every event, unless the model stands still. The measured rate includes lists for all events.
    """
    # One recommender learns and makes lists, and learning is on the CPU. Nobody reads what led to an item.
    recommender, blend = Recommender(replace(options, device="cpu", explain=False)), LearnedBlend(options.learned)
    recommender.learn([], steering=steering)
    profiles: dict[str, Profile] = {}
    visible: dict[str, Snapshot] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    to_learn: list[Snapshot] = []
    to_list: list[CatalogueChange] = []
    # The next to come is the last.
    to_come = sorted((item.created_at, name) for name, item in catalogue.items() if item.created_at is not None)[::-1]
    to_show: dict[str, Snapshot] = {}
    report, listed, taken = Report(), Counter[str](), Counter[str]()
    started, before_ms, half = time.perf_counter(), 0, len(events) // 2
    for number, event in enumerate(events):
        while to_come and to_come[-1][0] <= event.timestamp:
            to_list.append(change_of(catalogue[to_come.pop()[1]], options.content)[0])
        if _due(freshness.model_ms, before_ms, event.timestamp, number <= half):
            if recommender.learn(to_learn, to_list).kept:
                blend.forget_lists()
            to_learn, to_list = [], []
        if _due(freshness.profile_ms, before_ms, event.timestamp, number <= half):
            visible |= to_show
            to_show = {}
        before_ms = event.timestamp
        # Of somebody new the context alone is known, as it is of who opens a page.
        query = visible.get(event.user_id)
        if query is None:
            said = recommender.context.said_in(plain_properties(event))
            query = Snapshot(default_user(said), "", 0, 0, [], [], properties=said)
        before = seen[event.user_id]
        if exclude_seen:
            query.excluded = list(before)
        (ranked,) = recommender.recommend([query], k, blend)
        if on_list:
            on_list(number, event, ranked.item_ids)
        if event.item_id is not None:
            rank = ranked.item_ids.index(event.item_id) if event.item_id in ranked.item_ids else None
            report.add(number, len(events), event, before, taken[event.item_id], rank)
            taken[event.item_id] += event.item_id not in before
            if number >= half:
                listed.update(ranked.item_ids)
            before.add(event.item_id)
        if event.event_type == "erase_user":
            for table in (profiles, visible, to_show, seen):
                table.pop(event.user_id, None)
            blend.forget(event.user_id)
            to_learn.append(erasure(event, event.timestamp))
            continue
        profile = profiles.setdefault(event.user_id, Profile())
        outcome = apply_event(profile, event, profile_options)
        after = snapshot(profile, event, outcome, event.timestamp, profile_options)
        to_learn.append(after)
        to_show[event.user_id] = after
        if number < half or freshness.model_ms < math.inf:
            recommender.feedback(after, blend)
        item = event.item_id
        if item is not None and item in catalogue and recommender.index.row(item) < 0:
            to_list.append(change_of(catalogue[item], options.content)[0])
    report.events_per_second = len(events) / max(time.perf_counter() - started, 1e-9)
    report.spread(listed, len(recommender.index))
    return report


def gini(counts: Sequence[int]) -> float:
    """The Gini coefficient of the counts, 0 where all are equal or 0.

    Source: Sen, "On Economic Inequality", 1973, section 2.2.
    """
    total, size = sum(counts), len(counts)
    if not total:
        return 0.0
    return sum((2 * rank - size - 1) * count for rank, count in enumerate(sorted(counts), 1)) / (size * total)


def _due(period_ms: float, before_ms: int, now_ms: int, first_half: bool) -> bool:
    if period_ms == math.inf:
        return first_half
    return period_ms == 0 or now_ms // period_ms != before_ms // period_ms
