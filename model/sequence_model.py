"""What a person takes next, by the sequence of what they took and what those items are: two towers that learn from the
stream.

One tower reads the person's sequence (`model.sequence_networks`). The other is the item: a vector of its own, added to
vectors of the tokens of its content and a projection of its embedding, so that what is learned of a category or a word
holds for an item that nobody took yet (Kula, "Metadata embeddings for user and item cold-start recommendations",
CBRecSys 2015, section 3; Covington, Adams, Sargin, "Deep neural networks for YouTube recommendations", RecSys 2016, for
the towers). Their product is the logit of the item.

The loss is the cross-entropy over the catalogue, which Petrov, Macdonald, "gSASRec: Reducing overconfidence in
sequential recommendation trained with negative sampling", RecSys 2023, and Klenitskiy, Vasilev, "Turning dross into
gold loss: is BERT4Rec really better than SASRec?", RecSys 2023, found to matter more than the architecture. Over a
large catalogue its normaliser is estimated from the item itself and others drawn uniformly, weighted by how few of all
they are, as in Bengio, Senecal, "Quick training of probabilistic neural nets by importance sampling", AISTATS 2003.
Each place of a history learns its next few items, as in Pancha et al., "PinnerFormer", KDD 2022, section 3.4. The
likeliest items are candidates too, as in Covington, Adams, Sargin, section 3: what no other model thinks of could not
be put in order.

Four things more can be switched on. Gates between what an item is made of, after Arevalo, Solorio, Montes-y-Gomez,
Gonzalez, "Gated multimodal units for information fusion", ICLR workshop 2017, section 3. Self-supervision: two views of
one history, with other items masked in each, are to be told from other people's, as in Xie et al., "Contrastive
learning for sequential recommendation" (CL4SRec), ICDE 2022, sections III.B and III.C. Items that the shop calls
related are drawn to each other, as friends are in Ma, Zhou, Liu, Lyu, King, "Recommender systems with social
regularization", WSDM 2011, equation 10. And people whose newest item is of a rare kind are replayed more often.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast
from zlib import crc32

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import Parameter, functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from model.arrays import closed_up, grown, moved, pack_array, unpack_array, unpack_tensor
from model.batch import Batch, Rows, Weights
from model.candidates import choose_largest
from model.content import TOKENS, VOCABULARY, Content
from model.sequence_networks import NETWORKS
from schema.event import EVENT_TYPES

Digits = npt.NDArray[np.uint8]
_GAPS = 64
_BLOCK = 256
_FIRST, _SECOND = 0.9, 0.98
_CONTRAST_TEMPERATURE = 0.2
_AT_ONCE = 256


def _no_pairs() -> Rows:
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class SequenceOptions:
    """`network` is one of `NETWORKS`, or "" for none; it reads the `history` newest items, a transformer by so many
    `blocks`. Every `step` interactions
    there are `updates` updates, each over the histories of `fresh` of the people who had one of them and `replay` of
    all in a reservoir of `reservoir` people, and over all items or `negatives` of them. Every place of a history learns
    the `ahead` next items. The items' and tokens' vectors move at each update, the network's weights at each
    `trunk_every`-th. Of each person the `candidates` likeliest items are looked at for a list.
    `embedding_dimensions` are those of each of the content's embeddings. `gated` says whether what an item is made of
    passes gates; `contrast` is the weight of the self-supervised part of the loss, whose views miss each item with the
    chance `masked`; `relation_pull` that of the distance between related items. The more `balance`, from 0 to 1, the
    more people whose newest item is of a rare kind are replayed."""

    network: str = ""
    dimensions: int = 32
    history: int = 50
    blocks: int = 1
    reservoir: int = 4096
    step: int = 256
    updates: int = 4
    fresh: int = 32
    replay: int = 32
    negatives: int = 2048
    ahead: int = 2
    trunk_every: int = 1
    candidates: int = 40
    learning_rate: float = 5e-3
    dropout: float = 0.3
    embedding_dimensions: tuple[int, ...] = ()
    gated: bool = False
    contrast: float = 0.0
    masked: float = 0.3
    relation_pull: float = 0.0
    balance: float = 0.0
    seed: int = 1


class SequenceDelta(msgspec.Struct, array_like=True):
    """The network's weights float32, one after another, empty where they did not move; the items and the tokens int64
    whose vectors changed, and the vectors float32 [n, dimensions + 1]. `anew` says that the learner's model has failed,
    and begins once more."""

    weights: bytes = b""
    items: bytes = b""
    item_vectors: bytes = b""
    tokens: bytes = b""
    token_vectors: bytes = b""
    anew: bool = False


class _Table:
    """`vectors` float32 [n, width], which move by Adam (Kingma, Ba, ICLR 2015), each when an update looks at it.
    `moments` float32 [n, 2 * width] are the learner's alone, and there once any has moved."""

    def __init__(self, width: int) -> None:
        self.vectors, self.moments = torch.zeros(0, width), torch.zeros(0, 2 * width)
        self._changed: list[Rows] = []

    def resize(self, rows: int, seed: int) -> None:
        """Make room; a new vector is small and depends on the seed and the row alone."""
        known, width = self.vectors.shape
        self.vectors = grown(self.vectors, rows, 0)
        generator = torch.Generator()
        # Drawn in blocks, as seeding costs more than drawing.
        for block in range(known // _BLOCK, -(-rows // _BLOCK)):
            generator.manual_seed(seed * 1_000_003 + block)
            drawn = 0.05 * torch.randn(_BLOCK, width - 1, generator=generator)
            begin, end = max(known, block * _BLOCK), min(rows, (block + 1) * _BLOCK)
            self.vectors[begin:end, :-1] = drawn[begin - block * _BLOCK : end - block * _BLOCK]

    def move(self, rows: Rows, gradient: torch.Tensor, rate: float, update: int) -> None:
        """One step of Adam for these rows, each once."""
        places, self.moments = torch.from_numpy(rows), grown(self.moments, len(self.vectors), 0)
        moments = self.moments[places]
        first, second = moments.tensor_split(2, 1)
        self.vectors[places] -= _adam(first, second, gradient, rate, update)
        self.moments[places] = moments
        self._changed.append(rows)

    def changed(self) -> tuple[bytes, bytes]:
        """The rows that have moved since the last call, and their vectors."""
        if not self._changed:
            return b"", b""
        rows = np.unique(np.concatenate(self._changed))
        self._changed.clear()
        return pack_array(rows), pack_array(self.vectors.numpy()[rows])

    def apply(self, rows: bytes, vectors: bytes) -> None:
        """Take over what `changed` told elsewhere."""
        values = torch.from_numpy(unpack_array(vectors, np.float32))
        self.vectors[torch.from_numpy(unpack_array(rows, np.int64))] = values.view(-1, self.vectors.shape[1])

    def retain(self, rows: Rows) -> None:
        """Keep only these rows, as rows 0, 1, 2."""
        places = torch.from_numpy(rows)
        self.vectors = self.vectors[places]
        self.moments = self.moments[places] if len(self.moments) else self.moments

    def moved(self) -> Rows:
        """The rows that have ever moved."""
        return np.flatnonzero(self.moments.numpy().any(1))

    def pack(self, rows: Rows, learning: bool) -> list[bytes]:
        """These rows and their vectors, and, for `learning`, those that have ever moved and their moments."""
        moved = self.moved() if learning else np.empty(0, np.int64)
        arrays = rows, self.vectors.numpy()[rows], moved, self.moments.numpy()[moved]
        return [pack_array(array) for array in arrays]

    def load(self, packed: list[bytes]) -> None:
        """The inverse of `pack`, into rows that are there."""
        rows, vectors, moved, moments = packed
        self.apply(rows, vectors)
        if moved:
            self.moments = grown(self.moments, len(self.vectors), 0)
            values = torch.from_numpy(unpack_array(moments, np.float32))
            self.moments[torch.from_numpy(unpack_array(moved, np.int64))] = values.view(-1, self.moments.shape[1])


class SequenceModel:
    """`items` and `tokens` hold the vectors of the items [N, dimensions + 1] and of all tokens; the last number is
    added to an item's logit whatever the sequence. The reservoir exists on the learner only. The tables are on the CPU
    whatever the device is: a list asks for a few hundred items."""

    name = "sequence"

    def __init__(self, options: SequenceOptions, device: torch.device) -> None:
        self.options = options
        self.device = device
        self.updates = 0
        size = options.dimensions
        self.items, self.tokens = _Table(size + 1), _Table(size + 1)
        people = options.reservoir if options.network else 0
        # What each person of the reservoir took, newest first, the types of those events, and how long after the next
        # older one each was.
        self._histories = np.full((people, options.history + 1), -1, np.int64)
        self._types, self._gaps = np.zeros((2, *self._histories.shape), np.uint8)
        # An ordered set: the people of the open step.
        self._open_people: dict[int, None] = {}
        self._open = 0
        # How many items there were after the last batch.
        self._known = 0
        # Items as their vectors, tokens and embeddings make them, where those are of the version.
        self._composed, self._composed_in = np.zeros((0, size + 1), np.float32), np.zeros(0, np.int64)
        self._version, self._trained = 1, False
        if not options.network:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self._network = NETWORKS[options.network](size, options.history, options.dropout, options.blocks)
        projected = sum(options.embedding_dimensions)
        for name, rows in (("types", len(EVENT_TYPES)), ("gaps", _GAPS), ("projection", projected)):
            self._network.register_parameter(name, Parameter(torch.zeros(rows, size)))
        # Of each source, the item, its tokens and each embedding, what it is multiplied by, and a constant: at 0 the
        # gates let all pass.
        sources = 2 + len(options.embedding_dimensions)
        self._network.register_parameter("gates", Parameter(torch.zeros(sources * options.gated, size + 2)))
        self._bounds = np.cumsum([0, *options.embedding_dimensions])
        self._network.to(device).eval()
        self._weights = parameters_to_vector(self._network.parameters()).detach()
        # From now on the network's parameters are parts of that one vector.
        vector_to_parameters(self._weights, self._network.parameters())
        self._weight_moments = torch.zeros(2, len(self._weights))
        self.tokens.resize(VOCABULARY, options.seed + 1)

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        if self.options.network and items > len(self.items.vectors):
            self.items.resize(items, self.options.seed)
            self._composed = np.zeros((items, self.options.dimensions + 1), np.float32)
            self._composed_in = np.zeros(items, np.int64)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        if not self.options.network:
            return
        places = moved(rows, len(self.items.vectors))
        self.items.retain(rows)
        self._histories, (types, gaps) = closed_up(places[self._histories], self._types, self._gaps)
        self._types, self._gaps = types.astype(np.uint8), gaps.astype(np.uint8)
        self._composed, self._composed_in = self._composed[rows], np.zeros(len(rows), np.int64)
        self._known = len(rows)

    def changed(self, rows: Rows) -> None:
        """The content of these items is another."""
        if self.options.network:
            self._composed_in[rows] = 0

    def learn(
        self, batch: Batch, content: Content, train: bool, related: Callable[[], Rows] = _no_pairs
    ) -> SequenceDelta:
        """Take the interactions one by one; every `step` of them there are updates, wherever a batch is cut;
        without `train` there are none. `related` gives the pairs of rows int64 [P, 2] that the shop calls related."""
        if not self.options.network:
            return SequenceDelta()
        before, known = self.updates, np.maximum.accumulate(batch.items.max(1, initial=-1)) + 1
        length = self.options.history + 1
        for n, at in enumerate(batch.event_index.tolist()):
            row = crc32(batch.users[n].encode()) % len(self._histories)
            if batch.erased[n]:
                self._histories[row], self._types[row], self._gaps[row] = -1, 0, 0
                self._open_people.pop(row, None)
            if at < 0:
                continue
            history = batch.items[n, :length]
            self._histories[row], self._types[row], self._gaps[row] = -1, 0, 0
            self._histories[row, : len(history)] = history
            self._types[row, : len(history)] = batch.types[n, :length]
            self._gaps[row, : len(history)] = batch.gaps[n, :length]
            self._open_people.setdefault(row)
            self._open += 1
            if self._open >= self.options.step:
                # Not those that come later in the batch, wherever it is cut.
                size = max(self._known, int(known[n]))
                for _ in range(self.options.updates if train else 0):
                    self.update(content, size, related)
                self._open_people.clear()
                self._open = 0
        self._known = len(self.items.vectors)
        if self.updates == before:
            return SequenceDelta()
        every = self.options.trunk_every
        weights = pack_array(self._weights.numpy()) if self.updates // every > before // every else b""
        return SequenceDelta(weights, *self.items.changed(), *self.tokens.changed())

    def apply(self, delta: SequenceDelta) -> None:
        """Follow the learner."""
        if self.options.network and delta.items:
            if delta.weights:
                self._weights.copy_(unpack_tensor(delta.weights, np.float32, self.device))
            self.items.apply(delta.items, delta.item_vectors)
            self.tokens.apply(delta.tokens, delta.token_vectors)
            self._version, self._trained = self._version + 1, True

    def query(self, items: Rows, types: Digits, gaps: Digits, content: Content) -> Weights:
        """What follows each history `items` int64 [B, H], newest first, with the `types` and `gaps` uint8 [B, H] of its
        events: float32 [B, dimensions + 1], the product of which with an item's vector is its logit; 0 for an empty
        one."""
        queries = np.zeros((len(items), self.options.dimensions + 1), np.float32)
        if not self._trained or not len(items):
            return queries
        items, length = np.ascontiguousarray(items[:, : self.options.history]), self.options.history
        self._compose(items, content)
        vectors = torch.from_numpy(self._composed[np.maximum(items, 0), :-1]).to(self.device)
        held = torch.from_numpy(items >= 0).to(self.device)
        with torch.no_grad():
            found = self._read(vectors, types[:, :length], gaps[:, :length], held, 1)[:, 0]
        queries[:, :-1], queries[:, -1] = found.cpu().numpy(), 1
        return queries * (items[:, :1] >= 0)

    def likeliest(self, queries: Weights, among: Rows, own: Rows, barred: Rows, bounds: Rows, content: Content) -> Rows:
        """The `candidates` likeliest by `queries` of the items `among` int64 [P], which ascend, in no order, -1 where
        there are no more: int64 [B, E]. None is of the row's `own` int64 [B, H], nor of its `barred` int64 from
        `bounds[n]` to `bounds[n + 1]`, -1 is none in both."""
        found = np.full((len(queries), min(self.options.candidates, len(among))), -1)
        if self._trained and found.size:
            self._compose(among, content)
            # By torch: a scorer gives it one thread, where NumPy's product would take every core.
            logits = torch.from_numpy(queries) @ torch.from_numpy(self._composed[among]).T
            _choose(logits.numpy(), queries[:, -1], among, own, barred, bounds, found)
        return found

    def score_candidates(self, queries: Weights, candidates: Rows, content: Content) -> Weights:
        """How likely each of the `candidates` int64 [B, C] (-1 for none) is by `queries`, as a share of the likeliest:
        float32 [B, C], 0 where nothing is known."""
        scores = np.zeros(candidates.shape, np.float32)
        if self._trained:
            self._compose(candidates, content)
            _score(queries, candidates, self._composed, scores)
        return scores

    def _compose(self, rows: Rows, content: Content) -> None:
        """Bring what `_composed` holds of these items up to date."""
        projection, gates = (self._network.get_parameter(n).detach().cpu().numpy() for n in ("projection", "gates"))
        tables = self.items.vectors.numpy(), self.tokens.vectors.numpy()
        known = content.tokens, content.used, content.vectors, projection, gates, self._bounds
        _compose(rows.ravel(), self._version, self._composed_in, self._composed, *tables, *known)

    def _read(self, vectors: torch.Tensor, types: Digits, gaps: Digits, held: torch.Tensor, asked: int) -> torch.Tensor:
        tables = ((types, "types"), (gaps, "gaps"))
        added = [
            self._network.get_parameter(name)[torch.from_numpy(values.astype(np.int64)).to(self.device)]
            for values, name in tables
        ]
        embedded = (vectors * math.sqrt(self.options.dimensions) + added[0] + added[1]) * held[..., None]
        result: torch.Tensor = self._network(embedded, held, asked)
        return result

    def update(self, content: Content, size: int, related: Callable[[], Rows] = _no_pairs) -> None:
        """One step on the mean loss over some people's histories, among the first `size` items."""
        options, chance = self.options, np.random.default_rng((self.options.seed, self.updates))
        people = self._drawn(chance, content)
        if not len(people):
            return
        length = int((self._histories[people] >= 0).sum(1).max())
        history = self._histories[people, :length]
        everything = size <= options.negatives
        negatives = np.arange(size) if everything else np.sort(chance.choice(size, options.negatives, replace=False))
        rows = negatives if everything else np.union1d(history[history >= 0], negatives)
        self._network.requires_grad_((self.updates + 1) % options.trunk_every == 0)
        vectors, moving = self._composed_of(rows, content)
        places = torch.from_numpy(np.searchsorted(rows, np.maximum(history, 0)))
        held = torch.from_numpy(history >= 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed * 1_000_003 + self.updates)
            self._network.train()
            taken_before = functional.embedding(places[:, 1:], vectors[:, :-1])
            known = taken_before, self._types[people, 1:length], self._gaps[people, 1:length]
            read = self._read(*known, held[:, 1:], length - 1)
            views = [self._read(*known, seen, 1)[:, 0] for seen in self._views(held[:, 1:])]
            self._network.eval()
        person, place = held[:, 1:].nonzero(as_tuple=True)
        queries = read[person, place]
        among = vectors if everything else vectors[torch.from_numpy(np.searchsorted(rows, negatives))]
        normaliser = log_sum_exp(queries, among)
        loss, taught = queries.new_zeros(()), 0
        for ahead in range(options.ahead):
            there = place >= ahead
            taken = vectors[places[person[there], place[there] - ahead]]
            logit = (queries[there] * taken[:, :-1]).sum(1) + taken[:, -1]
            bound = normaliser[there]
            if not everything:
                bound = torch.logaddexp(logit, bound + math.log((size - 1) / len(negatives)))
            loss, taught = loss + (bound - logit).sum(), taught + len(logit)
        loss = loss / taught
        if views:
            loss = loss + options.contrast * _contrast(*views)
        if options.relation_pull:
            loss = loss + options.relation_pull * _distance(rows, vectors, related())
        loss.backward()
        self.updates += 1
        self._move(moving)
        self._version, self._trained = self._version + 1, True

    def _views(self, held: torch.Tensor) -> list[torch.Tensor]:
        """Two views of the histories `held` bool [B, H], which each miss some items; none where none are asked for."""
        if not self.options.contrast:
            return []
        return [held & (torch.rand(held.shape) >= self.options.masked) for _ in range(2)]

    def _drawn(self, chance: np.random.Generator, content: Content) -> Rows:
        """The people that an update is made of: those with two items at least, some of the open step, some of all."""
        fresh = np.fromiter(self._open_people, np.int64)
        fresh = chance.permutation(fresh[self._histories[fresh, 1] >= 0])[: self.options.fresh]
        known = np.flatnonzero(self._histories[:, 1] >= 0)
        weights = None
        if self.options.balance and len(known):
            # An item's first token is its broadest category.
            kinds = content.tokens[self._histories[known, 0], 0].astype(np.int64)
            weights = np.bincount(kinds)[kinds] ** -self.options.balance
            weights /= weights.sum()
        return np.union1d(fresh, chance.choice(known, min(self.options.replay, len(known)), replace=False, p=weights))

    def _composed_of(
        self, rows: Rows, content: Content
    ) -> tuple[torch.Tensor, list[tuple[_Table, Rows, torch.Tensor]]]:
        """The items of `rows` as their vectors, tokens and embeddings make them, and what a loss on that moves."""
        own = self.items.vectors[torch.from_numpy(rows)].requires_grad_()
        used = content.used[rows].astype(np.int64)
        ids = content.tokens[rows][np.arange(TOKENS) < used[:, None]].astype(np.int64)
        moving = [(self.items, rows, own)]
        sources = {0: own}
        if len(ids):
            known, places = np.unique(ids, return_inverse=True)
            of_tokens = self.tokens.vectors[torch.from_numpy(known)].requires_grad_()
            offsets = torch.from_numpy(np.cumsum(used) - used)
            bags = functional.embedding_bag(torch.from_numpy(places), of_tokens, offsets, mode="sum")
            sources[1] = bags / torch.from_numpy(np.sqrt(np.maximum(used, 1), dtype=np.float32))[:, None]
            moving.append((self.tokens, known, of_tokens))
        projection = self._network.get_parameter("projection")
        for n, (begin, end) in enumerate(pairwise(self._bounds.tolist())):
            projected = torch.from_numpy(content.vectors[rows, begin:end]) @ projection[begin:end]
            sources[2 + n] = functional.pad(projected, (0, 1))
        if self.options.gated:
            for place, source in sources.items():
                gate = self._network.get_parameter("gates")[place]
                sources[place] = source * 2 * torch.sigmoid(source @ gate[:-1] + gate[-1])[:, None]
        return torch.stack(list(sources.values())).sum(0), moving

    def _move(self, moving: list[tuple[_Table, Rows, torch.Tensor]]) -> None:
        parameters = [values for values in self._network.parameters() if values.requires_grad]
        gradients = [_gradient(values) for values in [*parameters, *(values for _, _, values in moving)]]
        if not all(bool(part.isfinite().all()) for part in gradients):
            raise FloatingPointError(f"the gradient of the sequence model's update {self.updates} is not finite")
        rate = self.options.learning_rate
        if parameters:
            first, second = self._weight_moments
            gradient = parameters_to_vector(gradients[: len(parameters)])
            self._weights -= _adam(first, second, gradient, rate, self.updates // self.options.trunk_every)
        for parameter in parameters:
            parameter.grad = None
        for (table, rows, _), part in zip(moving, gradients[len(parameters) :], strict=True):
            table.move(rows, part, rate, self.updates)

    def snapshot(self, learning: bool = True) -> dict[str, bytes]:
        """The network and the tables as packed arrays, and, for `learning`, moments and people."""
        if not self.options.network:
            return {}
        arrays = {
            "weights": self._weights.cpu().numpy(),
            "counts": np.array([self._open, self.updates]),
        }
        if learning:
            arrays["weight_moments"] = self._weight_moments.numpy()
            arrays |= {"histories": self._histories, "types": self._types, "gaps": self._gaps}
            arrays["open_people"] = np.fromiter(self._open_people, np.int64)
        packed = {name: pack_array(array) for name, array in arrays.items()} | {"shape": repr(self._shape).encode()}
        # What never moved is as the seed makes it; of items that holds no longer once some were forgotten.
        tables = (
            ("items", self.items.pack(np.arange(len(self.items.vectors)), learning)),
            ("tokens", self.tokens.pack(self.tokens.moved(), learning)),
        )
        return packed | {name: msgspec.msgpack.encode(table) for name, table in tables}

    @property
    def _shape(self) -> tuple[object, ...]:
        """What a packed state must have been made with."""
        options = self.options
        made = options.network, options.dimensions, options.history, options.reservoir
        # Of several embeddings the order counts; one alone is as earlier versions packed it.
        several = options.embedding_dimensions if len(options.embedding_dimensions) > 1 else ()
        return *made, sum(options.embedding_dimensions), len(self._weights), VOCABULARY, *several

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`. A network of other options is not taken: it begins anew."""
        if not self.options.network or arrays.get("shape") != repr(self._shape).encode():
            return
        self._weights.copy_(unpack_tensor(arrays["weights"], np.float32, self.device))
        for name, table in (("items", self.items), ("tokens", self.tokens)):
            table.load(msgspec.msgpack.decode(arrays[name], type=list[bytes]))
        if "histories" in arrays:
            self._weight_moments = torch.from_numpy(unpack_array(arrays["weight_moments"], np.float32)).view(2, -1)
            shape = self._histories.shape
            self._histories = unpack_array(arrays["histories"], np.int64).reshape(shape)
            self._types = unpack_array(arrays["types"], np.uint8).reshape(shape)
            self._gaps = unpack_array(arrays["gaps"], np.uint8).reshape(shape)
            self._open_people = dict.fromkeys(unpack_array(arrays["open_people"], np.int64).tolist())
        self._open, self.updates = unpack_array(arrays["counts"], np.int64).tolist()
        self._known = len(self.items.vectors)
        self._version, self._trained = self._version + 1, self.updates > 0


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        parts = [_logits(block, items).logsumexp(1) for block in queries.split(_AT_ONCE)]
        found = torch.cat(parts) if parts else queries.new_empty(0)
        ctx.save_for_backward(queries, items, found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        queries, items, found = ctx.saved_tensors
        of_queries, of_items = torch.empty_like(queries), torch.zeros_like(items)
        for begin in range(0, len(queries), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            shares = _logits(queries[part], items).sub_(found[part, None]).exp_().mul_(gradient[part, None])
            torch.mm(shares, items[:, :-1], out=of_queries[part])
            of_items[:, :-1].addmm_(shares.T, queries[part])
            of_items[:, -1] += shares.sum(0)
        return of_queries, of_items


def _logits(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return functional.linear(queries, items[:, :-1], items[:, -1])


def log_sum_exp(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum over all `items` float32 [N, D + 1] of the exponentials of their logits, the product of
    each of `queries` float32 [P, D] with an item, and its last number: float32 [P]. A block of queries at a time, whose
    logits stay in a cache and are made again for the gradient: no [P, N] has to be in memory."""
    return cast(torch.Tensor, _LogSumExp.apply(queries, items))


def _gradient(values: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(values) if values.grad is None else values.grad


def _adam(first: torch.Tensor, second: torch.Tensor, gradient: torch.Tensor, rate: float, update: int) -> torch.Tensor:
    """The step of Adam's algorithm 1 at the `update`-th update, from 1; both moments are moved in place."""
    first.mul_(_FIRST).add_(gradient, alpha=1 - _FIRST)
    second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
    scale = 1 - _SECOND**update
    return rate / (1 - _FIRST**update) * first / ((second / scale).sqrt() + 1e-8)


def _contrast(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How hard each row of `one` float32 [B, D] is to tell as the same row's of `other`, and the other way round."""
    alike = functional.normalize(one) @ functional.normalize(other).T / _CONTRAST_TEMPERATURE
    same = torch.arange(len(alike), device=alike.device)
    return (functional.cross_entropy(alike, same) + functional.cross_entropy(alike.T, same)) / 2


def _distance(rows: Rows, vectors: torch.Tensor, pairs: Rows) -> torch.Tensor:
    """The mean squared distance of the `vectors` of those `pairs` int64 [P, 2] of which both are among the `rows`."""
    pairs = pairs[np.isin(pairs, rows).all(1)]
    if not len(pairs):
        return vectors.new_zeros(())
    one, other = torch.from_numpy(np.searchsorted(rows, pairs).T)
    return ((vectors[one] - vectors[other]) ** 2).sum(1).mean()


@numba.njit("(f4[::1], f4[::1], f4[:,::1], i8)", cache=True, nogil=True)
def _add_source(source, composed, gates, place):  # type: ignore[no-untyped-def]
    width, gate = len(source), np.float32(1)
    if len(gates):
        logit = gates[place, width]
        for d in range(width):
            logit += source[d] * gates[place, d]
        gate = np.float32(2 / (1 + np.exp(-logit)))
    for d in range(width):
        composed[d] += gate * source[d]


@numba.njit(
    "(i8[:], i8, i8[::1], f4[:,::1], f4[:,::1], f4[:,::1], u2[:,::1], u1[::1], f4[:,::1], f4[:,::1], f4[:,::1], "
    "i8[::1])",
    cache=True,
    nogil=True,
)
def _compose(  # type: ignore[no-untyped-def]
    rows, version, made, composed, items, tokens, item_tokens, used, embeddings, projection, gates, bounds
):
    width = composed.shape[1]
    source = np.empty(width, np.float32)
    for row in rows:
        if row < 0 or made[row] == version:
            continue
        made[row] = version
        composed[row] = 0
        _add_source(items[row], composed[row], gates, 0)
        source[:] = 0
        for n in range(used[row]):
            token = item_tokens[row, n]
            for d in range(width):
                source[d] += tokens[token, d]
        source /= np.float32(np.sqrt(max(used[row], 1)))
        _add_source(source, composed[row], gates, 1)
        for part in range(len(bounds) - 1):
            source[:] = 0
            for e in range(bounds[part], bounds[part + 1]):
                if embeddings[row, e] != 0:
                    for d in range(width - 1):
                        source[d] += embeddings[row, e] * projection[e, d]
            _add_source(source, composed[row], gates, 2 + part)


@numba.njit("(f4[:,::1], f4[:], i8[::1], i8[:,:], i8[:], i8[::1], i8[:,::1])", cache=True, nogil=True)
def _choose(logits, asked, among, own, barred, bounds, found):  # type: ignore[no-untyped-def]
    heap = np.empty(found.shape[1], np.float32)
    for n in range(len(logits)):
        if asked[n] == 0:
            continue
        for items in (own[n], barred[bounds[n] : bounds[n + 1]]):
            for item in items:
                place = np.searchsorted(among, item)
                if place < len(among) and among[place] == item:
                    logits[n, place] = -np.inf
        choose_largest(logits[n], among, heap, found[n])
        for place in range(len(heap)):
            found[n, place] = among[found[n, place]] if heap[place] > -np.inf else -1


@numba.njit("(f4[:,::1], i8[:,:], f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _score(queries, candidates, composed, scores):  # type: ignore[no-untyped-def]
    for n in range(len(candidates)):
        if queries[n, -1] == 0:
            continue
        largest = np.float32(-np.inf)
        for c in range(candidates.shape[1]):
            item = candidates[n, c]
            if item >= 0:
                logit = np.float32(0)
                for d in range(queries.shape[1]):
                    logit += queries[n, d] * composed[item, d]
                scores[n, c] = logit
                largest = max(largest, logit)
        for c in range(candidates.shape[1]):
            if candidates[n, c] >= 0:
                scores[n, c] = np.exp(scores[n, c] - largest)
