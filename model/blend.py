"""The recommender: several models behind one catalogue, blended into one list.

The learner holds one and calls `learn`; every scorer holds a replica and calls `apply` with what `learn` returned, a
`Delta` (`model/delta.py`).
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import accumulate, chain, islice
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from model import devices
from model.arrays import largest_of, pack_array, unpack_array
from model.batch import Batch, Rows, Weights, parts_of, to_batch
from model.candidates import Asked, find_candidates, find_candidates_among
from model.category_popularity import LEVELS, CategoryPopularity, CategoryPopularityOptions
from model.content import Content, ContentOptions, texts_of
from model.context_popularity import ContextPopularity, ContextPopularityOptions
from model.cooccurrence import Cooccurrence, CooccurrenceOptions
from model.delta import VERSION, CatalogueChange, Delta, Steering, require_version
from model.diversity import diversify
from model.experiments import Experiments
from model.exploration import draws, explore
from model.failsafe_sequence import FailsafeSequence
from model.item_index import ItemIndex
from model.learned_blend import LearnedBlend, LearnedBlendOptions, features_of
from model.linear_item_model import LinearItemModel, LinearItemModelOptions
from model.matrix_factorization import MatrixFactorization, MatrixFactorizationDelta, MatrixFactorizationOptions
from model.popularity import Popularity, PopularityDelta, PopularityOptions
from model.private_counts import PrivacyOptions, PrivateCounts
from model.ranked_list import Origins, RankedList, origins_of, ranked_lists
from model.relations import Related, Relations, RelationsOptions
from model.rules import People, Rules, item_of
from model.sequence_model import SequenceDelta, SequenceOptions
from model.snapshot import Snapshot
from model.user_neighbours import UserNeighbours, UserNeighboursOptions
from model.user_segments import UserSegments, UserSegmentsOptions
from schema.errors import MessageError
from schema.experiment import encode_experiment, parse_experiment
from schema.recommendation import DEFAULT_USER, default_user
from schema.review import parse_decision

_log = logging.getLogger(__name__)
_WITHDRAWN, _DESCRIBED = 100_000, 8192
_SIGNALS = 11
LOOKED_UP = 128
"""Of how many people at once the lists are made where candidates are looked up and no matrix must fit a cache."""
GPU_SCORES = 2**27
"""So many scores of a model stand in a GPU's memory at once: half a gigabyte."""


_Model = (
    Cooccurrence
    | MatrixFactorization
    | Popularity
    | LinearItemModel
    | UserNeighbours
    | PrivateCounts
    | Content
    | FailsafeSequence
)


@dataclass(frozen=True)
class BlendOptions:
    """Options of the models and the learned blend, and the weights in the fixed blend that picks the candidates:
    co-occurrence, factorisation, popularity. With the `horizon` "next" a list holds what the person takes next, with
    "any" what they would take at any time: in the fixed blend the linear model stands in co-occurrence's place, and the
    last item of a history says no more than its first. `diversity` from 0 to 1 is how much a list avoids items that are
    alike, and `explain` whether it says which item led to each. A catalogue of up to `whole_catalogue` items is scored
    as a whole; of a larger one, on a CPU, only what goes with the person's items, and the `popular` most popular. Where
    more than `max_items` items are known, those with
    the least popularity are forgotten. With `privacy` co-occurrence and popularity hold what was released under its
    noise, and nothing else is learned."""

    cooccurrence: CooccurrenceOptions = field(default_factory=CooccurrenceOptions)
    factorization: MatrixFactorizationOptions = field(default_factory=MatrixFactorizationOptions)
    linear: LinearItemModelOptions = field(default_factory=LinearItemModelOptions)
    popularity: PopularityOptions = field(default_factory=PopularityOptions)
    weights: tuple[float, float, float] = (1.0, 0.3, 0.01)
    category_popularity: CategoryPopularityOptions = field(default_factory=CategoryPopularityOptions)
    context: ContextPopularityOptions = field(default_factory=ContextPopularityOptions)
    user_neighbours: UserNeighboursOptions = field(default_factory=UserNeighboursOptions)
    user_segments: UserSegmentsOptions = field(default_factory=UserSegmentsOptions)
    content: ContentOptions = field(default_factory=ContentOptions)
    relations: RelationsOptions = field(default_factory=RelationsOptions)
    sequence: SequenceOptions = field(default_factory=SequenceOptions)
    learned: LearnedBlendOptions = field(default_factory=LearnedBlendOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    horizon: str = "next"
    diversity: float = 0.0
    explain: bool = True
    max_items: int = 200_000
    whole_catalogue: int = 4096
    popular: int = 1024
    device: str = "cpu"


class SimilarItems(NamedTuple):
    """What goes with an item, best first."""

    item_id: str
    item_ids: list[str]
    scores: list[float]


class _Packed(msgspec.Struct, array_like=True):
    version: int
    items: list[str]
    blocked: bytes
    models: list[dict[str, bytes]]
    categories: list[str] = []
    category: bytes = b""
    withdrawn: list[str] = []
    private: bool = False
    relations: dict[str, list[str]] = {}
    user_segments: dict[str, bytes] = {}
    rules: dict[str, bytes] = {}
    experiments: dict[str, bytes] = {}
    decisions: dict[str, bool] = {}
    attributes: list[bytes] = []
    forgotten: dict[str, bytes] = {}
    contexts: dict[str, dict[str, dict[str, bytes]]] = {}


_encoder = msgspec.msgpack.Encoder()
_packed_decoder = msgspec.msgpack.Decoder(_Packed)


@lru_cache(_DESCRIBED)
def _described(attributes: bytes) -> dict[str, int]:
    """What an item's attributes say of it. Kept, as the same items stand on many lists."""
    return texts_of(item_of(attributes))


def _beside(*tables: Rows) -> Rows:
    """The columns of all int64 [B, I] side by side; what has none costs nothing."""
    held = [table for table in tables if table.shape[1]]
    return tables[0] if not held else held[0] if len(held) == 1 else np.hstack(held)


def _without(items: Rows, others: Rows) -> Rows:
    """`items` int64 [B, I] but for the row's `others` int64 [B, O], which become -1."""
    if not items.shape[1] or not others.shape[1]:
        return items
    return np.where((items[:, :, None] == others[:, None]).any(2), -1, items)


def _barred(prior: devices.Table, items: npt.NDArray[np.bool_]) -> devices.Table:
    """The prior, -inf for the `items` bool [N]."""
    if isinstance(prior, np.ndarray):
        return np.where(items, np.float32(-math.inf), prior)
    return prior.masked_fill(torch.from_numpy(items).to(prior.device), -math.inf)


class Recommender:
    """Item index, availability, and the models. `version` counts the snapshots and catalogue changes taken."""

    def __init__(self, options: BlendOptions) -> None:
        self.options = options
        self.device = devices.pick_device(options.device)
        self.index = ItemIndex()
        self.version = 0
        self.blocked = np.empty(0, np.bool_)
        self._blocks = False
        # Ids of items that the last batch made the learner forget, of those that others went with.
        self.forgotten: list[str] = []
        # Ids of items that were forgotten while they were unavailable.
        self._withdrawn: dict[str, None] = {}
        # Each item's category as a row of `categories`, -1 for none.
        self.categories = ItemIndex()
        # Of a category at any depth the rows of those below it, as far as they were looked at.
        self._leaves, self._levelled = dict[str, list[int]](), 0
        self.category = np.empty(0, np.int32)
        self.cooccurrence = Cooccurrence(options.cooccurrence, self.device)
        self.context = ContextPopularity(options.context, options.popularity)
        people = options.user_neighbours
        factorization = replace(options.factorization, share_users=people.nearest > 0)
        if options.horizon == "any":
            factorization = replace(factorization, query_decay=0.0, query_history=1024)
        self.factorization = MatrixFactorization(factorization, self.device)
        self.linear = LinearItemModel(options.linear, self.device)
        self.popularity = Popularity(options.popularity, self.device)
        self.category_popularity = CategoryPopularity(options.category_popularity)
        bounds = factorization.reservoir, factorization.history, factorization.dimensions
        self.user_neighbours = UserNeighbours(people, *bounds, self.device)
        self.user_segments = UserSegments(options.user_segments, factorization.dimensions)
        self.private = PrivateCounts(options.privacy)
        self.content = Content(options.content)
        self.relations = Relations(options.relations)
        self.rules, self.experiments = Rules(), Experiments()
        self.sequence = FailsafeSequence(options.sequence, self.device)
        # What the least of the most popular items had when they were last looked for.
        self._least_popular = np.float32(math.inf)
        self._scratch = torch.empty(0, device=self.device)
        self._parts: dict[int, tuple[devices.Table, devices.Table, devices.Table]] = {}
        # The two that score the whole catalogue.
        first = self.linear if options.horizon == "any" and not options.privacy.noise else self.cooccurrence
        self._scorers: tuple[Cooccurrence | LinearItemModel, MatrixFactorization] = (first, self.factorization)
        # What `model.ranked_list.Origins.sources` are places among.
        self._sources = [model.name for model in (*self._scorers, self.popularity)]
        self._sources += ["history", self.content.name, self.relations.name, self.sequence.name, "new"]
        # In the order of their packed states, which knew no linear model at first.
        self.models: tuple[_Model, ...] = (
            self.cooccurrence,
            self.factorization,
            self.popularity,
            self.linear,
            self.user_neighbours,
            self.private,
            self.content,
            self.sequence,
        )

    def _resize(self) -> None:
        if len(self.category) == len(self.index):
            return
        for model in self.models:
            model.resize(len(self.index))
        self.context.resize(len(self.index))
        self.rules.resize(self.index)
        known = len(self.blocked)
        self.blocked = np.append(self.blocked, np.zeros(len(self.index) - known, np.bool_))
        if self._withdrawn:
            again = [row for row in range(known, len(self.index)) if self.index.ids[row] in self._withdrawn]
            self.blocked[again] = True
            for row in again:
                del self._withdrawn[self.index.ids[row]]
            self._blocks = self._blocks or bool(again)
        self._parts.clear()
        self.category = np.append(self.category, np.full(len(self.index) - len(self.category), -1, np.int32))

    def learn(
        self,
        snapshots: Sequence[Snapshot],
        catalogue: Sequence[CatalogueChange] = (),
        train: bool = True,
        steering: Sequence[Steering] = (),
    ) -> Delta:
        """Learn from the events, in their order, from catalogue changes, and from how the shop steers; returns what
        changed. Without `train` the sequence model only takes note."""
        kept = np.empty(0, np.int64)
        self.forgotten = []
        if len(self.index) > self.options.max_items:
            kept = self._worth_keeping()
            dropped = np.setdiff1d(self.cooccurrence.paired(), kept)
            self.forgotten = [self.index.ids[row] for row in dropped.tolist()]
            self._retain(kept)
        known = len(self.index)
        batch = to_batch(snapshots, self.index, learn=True)
        self.index.extend(change.item_id for change in catalogue)
        self._resize()
        self._follow_catalogue(catalogue)
        self._steer(steering)
        before, self.version = self.version, self.version + len(snapshots) + len(catalogue) + len(steering)
        private = self.options.privacy.noise > 0
        factorization, popularity = self._learn_privately(batch) if private else self._learn(batch)
        related = partial(self.relations.pairs, self.index)
        delta = Delta(
            before,
            self.version,
            self.index.ids[known:],
            self.cooccurrence.delta(),
            factorization,
            self.linear.delta(),
            popularity,
            list(catalogue),
            pack_array(kept),
            SequenceDelta() if private else self.sequence.learn(batch, self.content, train, related),
            self.user_segments.learn(self.factorization.folded),
            list(steering),
            {} if private else self.context.learn(batch, self.context.of(snapshots)),
        )
        self.user_neighbours.apply(delta.factorization)
        self._follow_popularity(delta)
        return delta

    def _learn(self, batch: Batch) -> tuple[MatrixFactorizationDelta, PopularityDelta]:
        # The linear model reads the statistics of co-occurrence as they stand after each of its steps.
        for part in parts_of(batch, self.linear.to_step, self.linear.options.step):
            self.cooccurrence.learn(part)
            self.linear.learn(part, self.cooccurrence)
        return self.factorization.learn(batch), self.popularity.learn(batch)

    def _learn_privately(self, batch: Batch) -> tuple[MatrixFactorizationDelta, PopularityDelta]:
        if not self.private.learn(batch, len(self.index)):
            return MatrixFactorizationDelta(), PopularityDelta(self.popularity.landmark, b"", b"")
        size = min(len(self.index), self.options.privacy.items)
        counts = self.private.counts[:size].clip(min=0)
        self.cooccurrence.replace(counts, self.private.strong_pairs()[:size, :size])
        return MatrixFactorizationDelta(), self.popularity.replace(counts)

    def apply(self, delta: Delta) -> None:
        """Follow the learner by one delta. Raises ValueError where a delta before it is missing."""
        if delta.before != self.version:
            raise ValueError(f"delta {delta.before} to {delta.after} does not follow version {self.version}")
        if delta.kept:
            self._retain(unpack_array(delta.kept, np.int64))
        self.index.extend(delta.new_items)
        self._resize()
        self._follow_catalogue(delta.catalogue)
        self._steer(delta.steering)
        self.cooccurrence.apply(delta.cooccurrence)
        self.factorization.apply(delta.factorization)
        self.user_neighbours.apply(delta.factorization)
        self.linear.apply(delta.linear)
        self.user_segments.apply(delta.user_segments)
        self.sequence.apply(delta.sequence)
        self.popularity.apply(delta.popularity)
        self.context.apply(delta.contexts)
        self._follow_popularity(delta)
        self.version = delta.after

    def _worth_keeping(self) -> Rows:
        """The rows of the most popular items, of equals those known last, ascending: a tenth less than may be known, so
        that this is seldom to do."""
        sums = self.popularity.sums.cpu().numpy()
        order = np.lexsort((np.arange(len(sums)), sums))
        return np.sort(order[-(self.options.max_items - self.options.max_items // 10) :])

    def _retain(self, rows: Rows) -> None:
        """Forget all items but those of `rows`, which stand in rows 0, 1, 2 from now on."""
        dropped = np.setdiff1d(np.flatnonzero(self.blocked), rows)
        self._withdrawn |= dict.fromkeys(self.index.ids[row] for row in dropped)
        # The catalogue says so again, should one of long ago come back.
        self._withdrawn = dict(islice(self._withdrawn.items(), max(0, len(self._withdrawn) - _WITHDRAWN), None))
        for model in self.models:
            model.retain(rows)
        self.context.retain(rows)
        self.index = ItemIndex(self.index.ids[row] for row in rows)
        self.relations.retain(self.index)
        self.rules.retain(rows, self.index)
        self.blocked = self.blocked[rows]
        self._blocks = bool(self.blocked.any())
        self.category = self.category[rows]
        self.category_popularity.rebuild(self._people, self.category)
        self._parts.clear()

    def _follow_catalogue(self, catalogue: Sequence[CatalogueChange]) -> None:
        if not catalogue:
            return
        rows = self.index.rows(c.item_id for c in catalogue)
        self.blocked[rows] = [not c.available for c in catalogue]
        self._blocks = bool(self.blocked.any())
        contents, embeddings = (c.content for c in catalogue), (c.embedding for c in catalogue)
        self.content.follow(rows, contents, embeddings)
        self.sequence.changed(np.array(rows))
        for row, change in zip(rows, catalogue, strict=True):
            self.rules.follow(row, change.attributes)
        for change in catalogue:
            if change.related is not None:
                self.relations.follow(change.item_id, change.related)
        moved, people = False, self._people
        for change in catalogue:
            if change.category is not None:
                item, category = self.index.add(change.item_id), self.categories.add(change.category)
                if self.category[item] != category:
                    moved |= self.category[item] >= 0 or bool(people[item] > 0)
                    self.category[item] = category
        if moved:
            self.category_popularity.rebuild(self._people, self.category)

    def _steer(self, messages: Sequence[Steering]) -> None:
        for message in messages:
            if message.kind == "rule":
                self.rules.take(message.key, message.payload)
            elif message.kind == "experiment":
                self._take_experiment(message.key, message.payload)
            else:
                item, decision = parse_decision(message.key, message.payload)
                self.rules.decide(item, None if decision is None else decision.decision == "allow")

    def _take_experiment(self, experiment_id: str, payload: bytes | None) -> None:
        """One that an earlier version took and this one would not is left out, as with rules."""
        try:
            self.experiments.put(*parse_experiment(experiment_id, payload))
        except MessageError as error:
            _log.error("The experiment %s is left out: %s", experiment_id, error)

    def _follow_popularity(self, delta: Delta) -> None:
        taken = delta.popularity if self.options.privacy.noise else delta.contexts.get("")
        if len(self.categories) and taken is not None:
            items = unpack_array(taken.items, np.int64)
            self.category_popularity.follow(items, self._people, self.category)

    @property
    def _people(self) -> Weights:
        """How many people took each item lately, float32 [N]; under differential privacy, what of that was released."""
        if self.options.privacy.noise:
            return self.popularity.sums.cpu().numpy()
        return self.context.everybody.array

    def recommend(
        self,
        snapshots: Sequence[Snapshot],
        k: int,
        blend: LearnedBlend | None = None,
        sequence: bool = True,
        now_ms: int | None = None,
    ) -> list[RankedList]:
        """The k best items for each history, best first; fewer where fewer are known. `blend` orders the candidates and
        remembers them; without it the order is that of the fixed blend. Without `sequence` the lists are made as if no
        network were there. The shop's rules are those that hold at `now_ms` (epoch milliseconds), or else at the newest
        event's time.

        An unknown user is a snapshot with an empty history: popularity alone makes that list.
        """
        if not len(self.index) or not snapshots:
            return [RankedList([], [], [], [], []) for _ in snapshots]
        blend = blend or LearnedBlend(self.options.learned)
        prior = self.popularity.score(self.options.weights[-1])
        if self._blocks:
            prior = _barred(prior, self.blocked)
        # A GPU scores a large catalogue too, but the sequence model looks for the likeliest on the CPU.
        among_popular = not self._small and (not self._scores_all or bool(self.options.sequence.network))
        popular = self._most_popular(devices.on_host(prior)) if among_popular else None
        blocked = self.blocked
        new = self.content.pool(self.cooccurrence.counts_of, blocked)
        size = self._block_size if self._scores_all else LOOKED_UP
        blocks = (snapshots[n : n + size] for n in range(0, len(snapshots), size))
        now = max(snapshot.event_timestamp for snapshot in snapshots) if now_ms is None else now_ms
        given = blend, prior, popular, blocked, new, sequence, now
        return [ranked for block in blocks for ranked in self._ranked(block, k, *given)]

    def _most_popular(self, prior: Weights) -> Rows:
        """The rows of the most popular items, ascending, without those whose `prior` float32 [N] is -inf. What has at
        least what the least of them had the last time holds them all, as long as it is enough."""
        sums = self.popularity.sums.cpu().numpy()
        rows = np.flatnonzero(sums >= self._least_popular)
        rows = rows[prior[rows] > -math.inf]
        if len(rows) < self.options.popular:
            rows = np.flatnonzero(prior > -math.inf)
        rows = rows[largest_of(sums[rows], self.options.popular, -math.inf)]
        self._least_popular = sums[rows].min(initial=math.inf)
        return rows

    @property
    def _small(self) -> bool:
        return len(self.index) <= self.options.whole_catalogue

    @property
    def _scores_all(self) -> bool:
        """Whether lists are made from the scores of the whole catalogue."""
        return self._small or not devices.read_by_numba(self.device) or self._scorers[0] is not self.cooccurrence

    @property
    def _block_size(self) -> int:
        """How many users the whole catalogue is scored for at once: few enough that their scores stay in a CPU's cache,
        or in a GPU's memory."""
        return 64 if devices.read_by_numba(self.device) else max(16, min(256, GPU_SCORES // len(self.index)))

    def _ranked(
        self,
        snapshots: Sequence[Snapshot],
        k: int,
        blend: LearnedBlend,
        prior: devices.Table,
        popular: Rows | None,
        blocked: npt.NDArray[np.bool_],
        pool: Rows,
        sequence: bool,
        now_ms: int,
    ) -> Iterator[RankedList]:
        batch = to_batch(snapshots, self.index, learn=False)
        queries = self.factorization.query(batch.items, batch.weights)
        excluded = np.array(self.index.rows(chain.from_iterable(s.excluded for s in snapshots)), np.int64)
        bounds = np.array(list(accumulate((len(s.excluded) for s in snapshots), initial=0)), np.int64)
        weights, count = self.options.weights[:-1], max(k, self.options.learned.candidates)
        own = np.ascontiguousarray(batch.items[:, : self.options.learned.own_items])
        contexts = self.context.of(snapshots)
        near = self.category_popularity.near(batch.items, self.category)
        if self.options.user_neighbours.nearest:
            near = _beside(near, self.user_neighbours.near(batch.users, queries, own))
        near = _beside(near, self.context.near(contexts))
        new = self.content.new_items(batch.items, batch.weights, excluded, bounds, pool)
        related = self.relations.near(batch.items, batch.weights, self.index, blocked)
        clusters = self.user_segments.of(devices.on_host(queries))
        arms = [self.experiments.arms_of(user) for user in batch.users] if self.experiments.running else None
        steered = [self.experiments.effective(one) for one in arms] if arms else [{} for _ in batch.users]
        may_read, fixed = self._allowed(steered) if arms else (np.float32(1), None)
        held = self.rules.in_force(now_ms, People(snapshots, clusters.tolist(), steered))
        if held:
            if (filtered := self.rules.blocked(held)) is not None:
                # Here already, so that what is looked for is what may be on a list.
                prior = _barred(prior, filtered)
                popular = None if popular is None else popular[~filtered[popular]]
            wanted = self.rules.wanted(held, devices.on_host(prior), blocked, k)
            near = _beside(_without(_without(near, wanted), own), _without(wanted, own))
        wanted_by = np.array([sequence]) if arms is None else np.asarray(sequence & (may_read > 0))
        reading = self.sequence.read(batch, wanted_by, prior, popular, own, excluded, bounds, self.content)
        # Each candidate once, among the new ones where it is new.
        near = _without(_beside(_without(near, related.items), related.items, reading.likeliest), new.items)
        first_new = own.shape[1] + near.shape[1]
        given = Asked(excluded, bounds, own, _beside(near, new.items), count)
        if popular is None or self._scores_all:
            candidates = find_candidates(self._scores(batch, queries), weights, prior, given)
        else:
            known = self.cooccurrence.neighbourhoods(batch.items, batch.weights)
            vectors, learned = self.factorization.vectors.numpy(), self.factorization.learned.numpy()
            candidates = find_candidates_among(
                known, devices.on_host(queries), vectors, learned, popular, weights, devices.on_host(prior), given
            )
        self.rules.forbid(held, candidates.items)
        asked = (batch.items, batch.weights, candidates.items)
        signals = np.empty((_SIGNALS, *candidates.items.shape), np.float32)
        signals[:4] = self.cooccurrence.score_candidates(*asked)
        signals[4] = self.linear.score_candidates(*asked)
        signals[5] = self.context.score_candidates(contexts, batch.timestamps, candidates.items)
        signals[6] = self.category_popularity.score_candidates(candidates.items, self._people, self.category)
        signals[7] = self.content.score_candidates(*asked)
        signals[8] = self.content.score_embeddings(*asked)
        signals[9] = self.sequence.scores(reading, candidates.items, self.content)
        signals[10] = related.scores_of(candidates.items)
        popularity = self.cooccurrence.counts_of(candidates.items)
        features = features_of(candidates, signals, popularity, weights, batch, self.category)
        diversity = self.options.diversity
        ordered = candidates.items.shape[1] if diversity or held else k
        columns, chances = blend.order(batch.users, batch.events, clusters, candidates, features, ordered, fixed)
        if held:
            columns, chances = self.rules.boosted(held, candidates.items, columns, chances)
        order, all_chances = columns, chances
        if diversity:
            in_order = np.take_along_axis(candidates.items, np.maximum(columns, 0), 1)
            diversify(columns, chances, self.factorization.directions_of(in_order), k, diversity)
        columns, chances = columns[:, :k].copy(), chances[:, :k].copy()
        chance = self.options.content
        # The list for people without history stays for a minute of event time: it is made with every batch.
        named = [s.event_id if s.history else f"{s.user_id} {s.event_timestamp // 60_000}" for s in snapshots]
        # Where nothing is new nothing is drawn.
        slots = int(k * chance.share + 1e-9) if new.items.shape[1] else 0
        drawn = draws(named, slots, chance.seed) if slots else np.empty((len(named), 0), np.float32)
        scores, spreads = new.scores, None
        if chance.thompson:
            scores, spreads = blend.beliefs(
                batch.events, clusters, features[:, first_new : first_new + scores.shape[1]]
            )
        propensities = explore(
            columns, chances, candidates.items, first_new, scores, spreads, drawn, chance.temperature
        )
        touched = None
        if held and self.rules.shape(held):
            # The list as it would be, then whatever else could be on it.
            listed, after = np.hstack([columns, order]), np.zeros(order.shape, np.float32)
            filled = self.rules.fill(held, candidates.items, listed, np.hstack([propensities, after]) > 0, k)
            columns, chances, propensities = (
                np.where(filled.places >= 0, np.take_along_axis(table, np.maximum(filled.places, 0), 1), none)
                for table, none in (
                    (listed, -1),
                    (np.hstack([chances, all_chances]), np.float32(0)),
                    (np.hstack([propensities, after]), np.float32(0)),
                )
            )
            touched = filled.touched
        likeliest = slice(first_new - reading.likeliest.shape[1], first_new)
        others = first_new + new.items.shape[1]
        explain = self.options.explain
        origins = origins_of(candidates, weights, signals, likeliest, others, columns, propensities, explain)
        leading = self._leading(batch, origins, related)
        names = self._sources, self.index.ids
        lists = ranked_lists(origins, leading, batch.items, chances, propensities, *names, self._in_common)
        for n, (ranked, cluster) in enumerate(zip(lists, clusters.tolist(), strict=True)):
            ranked.segment = None if cluster < 0 else cluster
            ranked.experiments = (arms[n] or None) if arms else None
            if held and touched is not None:
                ranked.rules = [
                    [rule.rule_id for rule, hit in zip(held.rules, touched[:, n, place], strict=True) if hit]
                    for place in range(len(ranked.item_ids))
                ]
            yield ranked

    def _allowed(self, arms: list[dict[str, str]]) -> tuple[Weights, npt.NDArray[np.bool_]]:
        """What people's arms ask for: 1 where the sequence model may count, else 0, float32 [B, 1]; and whether the
        order is to be the fixed one, bool [B]."""
        settings = [self.experiments.settings_of(one) for one in arms]
        may_read = np.array([all(arm.sequence for arm in one) for one in settings], np.float32)[:, None]
        return may_read, np.array([any(arm.order == "fixed" for arm in one) for one in settings])

    def _leading(self, batch: Batch, origins: Origins, related: Related) -> Rows:
        """Which column of its person's history led to each entry, int64 [B, K], -1 where none did."""
        if not self.options.explain:
            return np.full(origins.items.shape, -1)
        leading = self.cooccurrence.led_by(batch.items, batch.weights, origins.asked[0])
        np.maximum(leading, self.content.led_by(batch.items, origins.asked[1]), out=leading)
        if related.items.shape[1]:
            np.maximum(leading, related.causes_of(origins.asked[2]), out=leading)
        return leading

    def _in_common(self, item: int, other: int) -> str | None:
        """What two items, by their rows, have in common."""
        known = self.rules.known
        return self.content.shared(_described(known[item]), _described(known[other]))

    def _scores(self, batch: Batch, queries: devices.Table) -> devices.Table:
        """Both models' scores float32 [2, B, N], in scratch."""
        size = len(batch.users)
        if size not in self._parts:
            shape = (2, size, len(self.index))
            self._scratch = devices.with_room(self._scratch, 2 * self._block_size * len(self.index))
            scratch = self._scratch[: math.prod(shape)].view(shape)
            parts = scratch.numpy() if devices.read_by_numba(self.device) else scratch
            self._parts[size] = parts, parts[0], parts[1]
        parts, of_first, of_second = self._parts[size]
        first, second = self._scorers
        first.score(batch.items, batch.weights, of_first)
        second.score(queries, of_second)
        return parts

    def similar_items(self, delta: Delta, k: int) -> list[SimilarItems]:
        """What goes with the items whose counts the newest delta, made by this recommender, has brought over a power of
        1.5; with all that it holds under differential privacy. Items that nothing goes with are left out."""
        allowed = ~(self.blocked | self.rules.nowhere)
        grown, ids = self.cooccurrence.grown(delta.cooccurrence), self.index.ids
        if self.options.privacy.noise:
            grown = np.unique(unpack_array(delta.cooccurrence.items, np.int64))
        items, scores = self.cooccurrence.similar(grown, allowed, k)
        found = zip(grown.tolist(), items.tolist(), scores.astype(np.float64).round(5).tolist(), strict=True)
        lengths = (items >= 0).sum(1).tolist()
        return [
            SimilarItems(ids[row], [ids[other] for other in others[:length]], said[:length])
            for (row, others, said), length in zip(found, lengths, strict=True)
            if length
        ]

    def taken_categories(self, delta: Delta) -> set[str]:
        """The categories, at any depth, of the items that the newest delta, this recommender's, has taken."""
        leaves = np.unique(self.category[unpack_array(delta.popularity.items, np.int64)])
        return {name for leaf in leaves[leaves >= 0].tolist() for name in self.categories.ids[leaf].split(LEVELS)}

    def popular_in(self, category: str, k: int) -> tuple[list[str], list[float]]:
        """The available items that are most popular in a category at any depth, best first, and how popular each is
        beside the first."""
        for leaf in range(self._levelled, len(self.categories)):
            for name in dict.fromkeys(self.categories.ids[leaf].split(LEVELS)):
                self._leaves.setdefault(name, []).append(leaf)
        self._levelled = len(self.categories)
        leaves = [leaf for leaf in self._leaves.get(category, ()) if leaf < len(self.category_popularity.best)]
        items = self.category_popularity.best[leaves].ravel()
        items, allowed = items[items >= 0], ~(self.blocked | self.rules.nowhere)
        if not allowed[items].all():
            # The most popular are sold out: those after them are known of no category.
            items = np.flatnonzero(np.isin(self.category, leaves) & (self._people > 0))
        items = items[allowed[items]]
        sums = self._people[items]
        order = np.argsort(-sums, kind="stable")[:k]
        scores = sums[order] / max(sums.max(initial=0), np.finfo(np.float32).tiny)
        return [self.index.ids[row] for row in items[order].tolist()], scores.astype(np.float64).round(5).tolist()

    def feedback(self, snapshot: Snapshot, blend: LearnedBlend, place: int = -1) -> None:
        """Teach the blend which item the user took after the list that it remembers, and at which `place` of it, -1
        where they found it elsewhere. Of what they take at any time that says little: then the order stays that of the
        fixed blend."""
        if snapshot.event_index >= 0 and self.options.horizon == "next":
            row = self.index.row(snapshot.history[snapshot.event_index])
            if not blend.learn(snapshot.user_id, row, place) and snapshot.profile_version == 1:
                # Who is new had a list for people without history.
                strangers = default_user(self.context.said_in(snapshot.properties)), DEFAULT_USER
                for user in strangers:
                    if blend.learn(user, row, place):
                        break

    def forget_people(self) -> None:
        """Drop what only a learner needs: people's histories, and sums that are not released."""
        self.factorization.forget_people()
        self.private = PrivateCounts(self.options.privacy)

    def pack(self, learning: bool = True) -> bytes:
        """The whole recommender, for a learner's state, or without `learning` for a replica."""
        models = [*(model.snapshot() for model in self.models[:-1]), self.sequence.snapshot(learning)]
        packed = _Packed(self.version, self.index.ids, pack_array(self.blocked), models)
        packed.categories, packed.category = self.categories.ids, pack_array(self.category)
        packed.withdrawn, packed.private = list(self._withdrawn), self.options.privacy.noise > 0
        packed.relations, packed.user_segments = self.relations.named, self.user_segments.snapshot()
        packed.rules, packed.decisions = self.rules.packed(), self.rules.decisions
        packed.experiments = {name: encode_experiment(one) for name, one in self.experiments.running.items()}
        packed.attributes = self.rules.known if any(self.rules.known) else []
        packed.forgotten, packed.contexts = self.rules.forgotten, self.context.snapshot()
        return bytes((VERSION,)) + _encoder.encode(packed)

    @classmethod
    def unpack(cls, packed: bytes, options: BlendOptions) -> "Recommender":
        """The inverse of `pack`; where privacy is asked for and was not, nothing that was learned comes back. Raises
        ValueError on a version that this code does not know."""
        require_version(packed)
        state = _packed_decoder.decode(memoryview(packed)[1:])
        recommender = cls(options)
        recommender.version = state.version
        recommender.index.extend(state.items)
        recommender._resize()
        recommender._withdrawn = dict.fromkeys(state.withdrawn)
        recommender.blocked = unpack_array(state.blocked, np.bool_)
        recommender._blocks = bool(recommender.blocked.any())
        recommender.categories.extend(state.categories)
        for item, others in state.relations.items():
            recommender.relations.follow(item, others)
        for rule_id, rule in state.rules.items():
            recommender.rules.take(rule_id, rule)
        for experiment_id, experiment in state.experiments.items():
            recommender._take_experiment(experiment_id, experiment)
        for item, allowed in state.decisions.items():
            recommender.rules.decide(item, allowed)
        recommender.rules.remember(state.forgotten)
        for row, attributes in enumerate(state.attributes):
            recommender.rules.follow(row, attributes)
        if state.category:
            recommender.category = unpack_array(state.category, np.int32)
        if state.private or not options.privacy.noise:
            for model, arrays in zip(recommender.models, state.models, strict=False):
                model.load(arrays)
            if state.user_segments:
                recommender.user_segments.load(state.user_segments)
            recommender.context.load(state.contexts, recommender.popularity)
        recommender.category_popularity.rebuild(recommender._people, recommender.category)
        return recommender
