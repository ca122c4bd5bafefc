"""What an item is, by its words and its embedding: how well it goes with what a person takes, before anybody took it.

Items and people are bags of tokens, weighted by inverse document frequency and compared by cosine. Source: Salton and
Buckley, "Term-weighting approaches in automatic text retrieval", Information Processing & Management 24, 1988; a person
is the sum of their items as in Rocchio's relevance feedback (1971). Tokens are hashed, as in Weinberger et al.,
"Feature Hashing for Large Scale Multitask Learning", ICML 2009. An embedding, of a text, an image or whatever the shop
knows of an item, is the catalogue's own.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, islice
from typing import NamedTuple
from zlib import crc32

import numba
import numpy as np
import numpy.typing as npt
import torch

from model.arrays import grown, moved, pack_array, put_among_best, unpack_array
from model.batch import Rows, Weights
from schema.errors import MessageError, shown
from schema.item import Item

TOKENS = 24
"""How many tokens of an item are kept, those of the category first."""
VOCABULARY = 1 << 16
"""How many tokens there are."""
_WORD = re.compile(r"\w+")
_LOOKED_AT = 4096


@dataclass(frozen=True)
class ContentOptions:
    """A person is their `recent` newest items, of which the n-th counts (1+n)^-`decay`. Of the `pool` newest items of
    the catalogue those with fewer than `new_until` interactions are new, and for each person the `new_items` of them
    that go best with the person, by words and embedding together, are candidates. `share` of a list's places, rounded
    down, is given to such items, drawn by a softmax of how well they go, over `temperature`, or with `thompson` each by
    the chance that it is the best by the learned order, in view of how little that is sure of. `embeddings` are those
    of the catalogue that count, each with how many numbers it has."""

    recent: int = 10
    decay: float = 0.5
    pool: int = 256
    new_until: int = 5
    new_items: int = 5
    share: float = 0.05
    temperature: float = 0.1
    thompson: bool = False
    embeddings: tuple[tuple[str, int], ...] = ()
    seed: int = 1

    @property
    def embedding_dimensions(self) -> int:
        """How many numbers the embeddings have together."""
        return sum(dimensions for _, dimensions in self.embeddings)


class NewItems(NamedTuple):
    """For each of B people the new `items` int64 [B, E] that go best with them, best first, -1 for none, and how well:
    `scores` float32 [B, E] from 0 to 2, as words and embedding count alike."""

    items: Rows
    scores: Weights


def tokens_of(item: Item) -> bytes:
    """The item's tokens, uint16, each once: its category at each level, brand, price (by powers of 1.5, within its
    category), the year and the month of its creation, and the words of title and description, as many as there is room
    for."""
    tokens = list(dict.fromkeys(texts_of(item).values()))[:TOKENS]
    return pack_array(np.array(tokens, np.uint16))


def embedding_of(item: Item, options: ContentOptions) -> bytes:
    """The item's embeddings one after another, each at the same length, together at length 1, 0 for one that it lacks:
    float32 [embedding_dimensions]; empty where it has none. Raises MessageError on one of another size, or of zeros."""
    parts = [_part(item, name, dimensions) for name, dimensions in options.embeddings]
    there = sum(part.any() for part in parts)
    return pack_array((np.concatenate(parts) / math.sqrt(there)).astype(np.float32)) if there else b""


def _part(item: Item, name: str, dimensions: int) -> npt.NDArray[np.float64]:
    """One of the item's embeddings at length 1, zeros where it has none of that name."""
    found = (item.embeddings or {}).get(name)
    if found is None:
        return np.zeros(dimensions)
    vector = np.array(found, np.float64)
    length = np.linalg.norm(vector)
    if len(vector) != dimensions or not np.isfinite(length) or length == 0:
        reason = f"must hold {dimensions} numbers, not all 0"
        raise MessageError("bad_embedding", f"embeddings.{name}", shown(found), reason)
    return np.asarray(vector / length)


def texts_of(item: Item) -> dict[str, int]:
    """What an item's tokens say, each once, in their order, and which token says it: see `tokens_of`."""
    return {text: _token(text) for text in _texts(item)}


def _token(text: str) -> int:
    return crc32(text.encode()) % VOCABULARY


def _texts(item: Item) -> Iterator[str]:
    path = [level.strip().lower() for level in item.category[:TOKENS]]
    yield from (f"category:{levels}" for levels in accumulate(path, lambda one, other: f"{one}>{other}"))
    if item.brand:
        yield f"brand:{item.brand.strip().lower()}"
    if item.price:
        yield f"price:{path[-1] if path else ''}:{item.currency}:{round(math.log(item.price, 1.5))}"
    if item.created_at is not None:
        created = datetime.fromtimestamp(item.created_at / 1000, UTC)
        yield from (f"created:{created:%Y}", f"created:{created:%Y-%m}")
    for text in (item.title, item.description):
        yield from (f"word:{word[0]}" for word in _WORD.finditer((text or "").lower()))


class Content:
    """`tokens` uint16 [N, TOKENS]: those of each item, of which `used` uint8 [N] come first; `vectors` float32
    [N, embedding_dimensions], 0 where an item has none. On the CPU whatever the device is: a list asks for a few
    hundred items."""

    name = "content"

    def __init__(self, options: ContentOptions) -> None:
        self.options = options
        self._hold(
            torch.zeros(0, TOKENS, dtype=torch.uint16),
            torch.zeros(0, dtype=torch.uint8),
            torch.zeros(0, options.embedding_dimensions),
        )
        self._decay = (1 + np.arange(options.recent, dtype=np.float32)) ** np.float32(-options.decay)
        # The rows with content, in the order in which they came, and how many items have each token.
        self._arrived: dict[int, None] = {}
        self._frequency = np.zeros(VOCABULARY, np.int64)
        # Inverse document frequency float32, as of `_documents` items: a power of two, so that a further item mostly
        # changes that of its own tokens alone.
        self._documents, self._idf = 1, np.zeros(VOCABULARY, np.float32)

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        if items > len(self.used):
            self._hold(*(grown(table, items, 0) for table in self._tables))

    def _hold(self, *tables: torch.Tensor) -> None:
        """Keep the tables as tensors, which grow in place, and name them as arrays."""
        self._tables = tables
        self.tokens, self.used, self.vectors = (table.numpy() for table in tables)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        places = moved(rows, len(self.used))
        self._hold(*(torch.from_numpy(array[rows]) for array in (self.tokens, self.used, self.vectors)))
        self._arrived = {int(places[row]): None for row in self._arrived if places[row] >= 0}
        self._count()

    def follow(self, rows: Iterable[int], contents: Iterable[bytes], embeddings: Iterable[bytes]) -> None:
        """Take the tokens and embeddings of the items in `rows`, as `tokens_of` and `embedding_of` pack them; what an
        item has none of stays as it was."""
        told: list[tuple[int, bytes]] = []
        for row, packed, embedding in zip(rows, contents, embeddings, strict=True):
            vector = unpack_array(embedding, np.float32)
            # A log may hold embeddings of another length than is asked for now.
            if len(vector) and len(vector) == self.vectors.shape[1]:
                self.vectors[row] = vector
                self._arrived.setdefault(row)
            if packed:
                told.append((row, packed[: 2 * TOKENS]))
                self._arrived.setdefault(row)
        # All items' tokens at once: a call for each would cost more than what it does.
        tokens = unpack_array(b"".join(packed for _, packed in told), np.uint16)
        lengths = np.array([len(packed) // 2 for _, packed in told], np.int64)
        items = np.array([row for row, _ in told], np.int64)
        self._weigh(_replace(items, lengths, tokens, self.tokens, self.used, self._frequency))

    def score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """How well each of `candidates` int64 [B, C] (-1 for none) goes with a history `items` int64 [B, H], newest
        first, with `weights` float32 [B, H]: float32 [B, C] from 0 to 1."""
        scores = np.zeros(candidates.shape, np.float32)
        if self._arrived:
            _score(items, weights, self._decay, candidates, self.tokens, self.used, self._idf, scores)
        return scores

    def score_embeddings(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """The same by embeddings alone: the cosine with the sum of the history's, 0 where it is less."""
        scores = np.zeros(candidates.shape, np.float32)
        if self.vectors.shape[1]:
            _multiply(items, weights, self._decay, candidates, self.vectors, scores)
        return scores

    def pool(self, counts_of: Callable[[Rows], Weights], blocked: npt.NDArray[np.bool_]) -> Rows:
        """The rows of new items, the newest first, of the 4,096 that came last; `counts_of` tells the interactions
        of rows int64 [1, n], and `blocked` bool [N] items are left out."""
        if not self._arrived:
            return np.empty(0, np.int64)
        # Those that are sold out or known by now are not to leave the rest without a chance.
        for looked_at in (self.options.pool, max(_LOOKED_AT, self.options.pool)):
            newest = np.fromiter(islice(reversed(self._arrived), looked_at), np.int64)
            found = newest[(counts_of(newest[None])[0] < self.options.new_until) & ~blocked[newest]]
            if len(found) >= self.options.pool or len(newest) < looked_at:
                break
        return found[: self.options.pool]

    def new_items(self, items: Rows, weights: Weights, excluded: Rows, bounds: Rows, pool: Rows) -> NewItems:
        """Those of the `pool` int64 [P] that go best with each history, of equals the first, and any with one of which
        nothing is known; but none that stands in the history, or in row n's `excluded` int64 from `bounds[n]` to
        `bounds[n + 1]`."""
        size = min(self.options.new_items, len(pool))
        found = NewItems(np.empty((len(items), size), np.int64), np.zeros((len(items), size), np.float32))
        if size:
            found.items[:] = -1
            by_embedding = self.score_embeddings(items, weights, np.tile(pool, (len(items), 1)))
            content = self.tokens, self.used, self._idf, self.vectors, by_embedding
            _best(items, weights, self._decay, pool, excluded, bounds, *content, *found)
        return found

    def led_by(self, items: Rows, listed: Rows) -> Rows:
        """Which of the `recent` newest items of each history int64 [B, H] each of the `listed` int64 [B, K] goes with
        best: its column int64 [B, K], -1 where it goes with none, and for -1."""
        columns = np.full(listed.shape, -1)
        if self._arrived:
            content = self.tokens, self.used, self._idf, self.vectors
            _closest(items[:, : self.options.recent], listed, *content, columns)
        return columns

    def shared(self, one: Mapping[str, int], other: Mapping[str, int]) -> str | None:
        """What says most of what both items, by their `texts_of`, have: "category:" and its levels, "brand:", "word:"
        and the word, in lower case, or "price"; None where they have nothing in common."""
        common = [text for text in one if text in other]
        if not common:
            return None
        most = max(common, key=lambda text: self._idf[one[text]]) if len(common) > 1 else common[0]
        return "price" if most.startswith("price:") else most

    def _weigh(self, tokens: npt.NDArray[np.uint16]) -> None:
        """Bring the inverse document frequencies up to date, where those of `tokens` have changed."""
        documents = 1 << len(self._arrived).bit_length()
        changed = tokens if documents == self._documents else np.arange(VOCABULARY)
        self._documents = documents
        self._idf[changed] = np.log(1 + documents / (1 + self._frequency[changed]))

    def _count(self) -> None:
        held = np.arange(TOKENS) < self.used[:, None]
        self._frequency = np.bincount(self.tokens[held], minlength=VOCABULARY)
        self._documents = 0
        self._weigh(np.empty(0, np.uint16))

    def snapshot(self) -> dict[str, bytes]:
        """The tokens as packed arrays."""
        held = np.arange(TOKENS) < self.used[:, None]
        arrived = np.array(list(self._arrived), np.int64)
        return {
            "tokens": pack_array(self.tokens[held]),
            "used": pack_array(self.used),
            "arrived": pack_array(arrived),
            "vectors": pack_array(self.vectors),
            "embedding": self._embedding_names,
        }

    @property
    def _embedding_names(self) -> bytes:
        return "+".join(name for name, _ in self.options.embeddings).encode()

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`. Embeddings of other names or lengths than are asked for now are not taken: the
        catalogue has to be sent again."""
        used = unpack_array(arrays["used"], np.uint8)
        tokens = np.zeros((len(used), TOKENS), np.uint16)
        tokens[np.arange(TOKENS) < used[:, None]] = unpack_array(arrays["tokens"], np.uint16)
        self._arrived = dict.fromkeys(unpack_array(arrays["arrived"], np.int64).tolist())
        vectors = unpack_array(arrays["vectors"], np.float32)
        shape = len(used), self.options.embedding_dimensions
        same = arrays["embedding"] == self._embedding_names and vectors.size == shape[0] * shape[1]
        vectors = vectors.reshape(shape) if same else np.zeros(shape, np.float32)
        self._hold(*map(torch.from_numpy, (tokens, used, vectors)))
        self._count()


@numba.njit("u2[::1](i8[::1], i8[::1], u2[::1], u2[:,::1], u1[::1], i8[::1])", cache=True)
def _replace(items, lengths, told, tokens, used, frequency):  # type: ignore[no-untyped-def]
    """Give each of the items in turn so many of the tokens that are `told`. Returns the tokens, some twice, which more
    items have now, or fewer."""
    changed, size, begin = np.empty(len(items) * tokens.shape[1] + len(told), np.uint16), 0, 0
    for place in range(len(items)):
        item, length = items[place], lengths[place]
        for n in range(used[item]):
            frequency[tokens[item, n]] -= 1
            changed[size] = tokens[item, n]
            size += 1
        for n in range(length):
            token = told[begin + n]
            frequency[token] += 1
            tokens[item, n] = changed[size] = token
            size += 1
        used[item] = length
        begin += length
    return changed[:size]


@numba.njit("f4(i8, u2[:,::1], u1[::1], f4[::1])", cache=True, nogil=True)
def _length(item, tokens, used, idf):  # type: ignore[no-untyped-def]
    squares = np.float32(1e-12)
    for n in range(used[item]):
        squares += idf[tokens[item, n]] * idf[tokens[item, n]]
    return np.sqrt(squares)


@numba.njit("b1(i8[:], f4[:], f4[::1], u2[:,::1], u1[::1], f4[::1], f4[::1])", cache=True, nogil=True)
def _add_person(items, weights, decay, tokens, used, idf, person):  # type: ignore[no-untyped-def]
    """Add the person's tokens to `person`, zeros before, so that the cosine with an item's is their product over the
    item's length. Returns whether there are any."""
    for column in range(min(len(items), len(decay))):
        if items[column] >= 0:
            share = weights[column] * decay[column] / _length(items[column], tokens, used, idf)
            for n in range(used[items[column]]):
                token = tokens[items[column], n]
                person[token] += share * idf[token]
    squares = np.float32(0)
    for column in range(min(len(items), len(decay))):
        if items[column] >= 0:
            for n in range(used[items[column]]):
                token = tokens[items[column], n]
                # Each token once: those that were counted are below 0 until the end.
                if person[token] > 0:
                    squares += person[token] * person[token]
                    person[token] = -person[token]
    scale = np.float32(1) / np.sqrt(max(squares, np.float32(1e-12)))
    for column in range(min(len(items), len(decay))):
        if items[column] >= 0:
            for n in range(used[items[column]]):
                token = tokens[items[column], n]
                if person[token] < 0:
                    person[token] *= -scale
    return squares > 0


@numba.njit("(i8[:], i8, u2[:,::1], u1[::1], f4[::1])", cache=True, nogil=True)
def _clear_person(items, length, tokens, used, person):  # type: ignore[no-untyped-def]
    for column in range(min(len(items), length)):
        if items[column] >= 0:
            for n in range(used[items[column]]):
                person[tokens[items[column], n]] = 0


@numba.njit("f4(i8, u2[:,::1], u1[::1], f4[::1], f4[::1])", cache=True, nogil=True)
def _product(item, tokens, used, idf, person):  # type: ignore[no-untyped-def]
    product = np.float32(0)
    for n in range(used[item]):
        product += person[tokens[item, n]] * idf[tokens[item, n]]
    return product


@numba.njit("(i8[:,:], f4[:,:], f4[::1], i8[:,:], u2[:,::1], u1[::1], f4[::1], f4[:,::1])", cache=True, nogil=True)
def _score(items, weights, decay, candidates, tokens, used, idf, scores):  # type: ignore[no-untyped-def]
    person = np.zeros(len(idf), np.float32)
    for row in range(len(items)):
        _add_person(items[row], weights[row], decay, tokens, used, idf, person)
        for c in range(candidates.shape[1]):
            if candidates[row, c] >= 0:
                product = _product(candidates[row, c], tokens, used, idf, person)
                scores[row, c] = product / _length(candidates[row, c], tokens, used, idf)
        _clear_person(items[row], len(decay), tokens, used, person)


@numba.njit(
    "(i8[:,:], f4[:,:], f4[::1], i8[::1], i8[::1], i8[::1], u2[:,::1], u1[::1], f4[::1], f4[:,::1], f4[:,::1], "
    "i8[:,::1], f4[:,::1])",
    cache=True,
    nogil=True,
)
def _best(  # type: ignore[no-untyped-def]
    items, weights, decay, pool, excluded, bounds, tokens, used, idf, vectors, by_embedding, found, scores
):
    person, lengths = np.zeros(len(idf), np.float32), np.empty(len(pool), np.float32)
    size = found.shape[1]
    for p in range(len(pool)):
        lengths[p] = _length(pool[p], tokens, used, idf)
    for row in range(len(items)):
        known = _add_person(items[row], weights[row], decay, tokens, used, idf, person)
        for column in range(min(items.shape[1], len(decay))):
            for d in range(vectors.shape[1]):
                known |= items[row, column] >= 0 and vectors[items[row, column], d] != 0
        count = 0
        for p in range(len(pool)):
            item = pool[p]
            score = _product(item, tokens, used, idf, person) / lengths[p] + by_embedding[row, p]
            if (known and score == 0) or (count == size and score <= scores[row, size - 1]):
                continue
            barred = False
            for column in range(items.shape[1]):
                barred |= items[row, column] == item
            for n in range(bounds[row], bounds[row + 1]):
                barred |= excluded[n] == item
            if barred:
                continue
            count = put_among_best(found[row], scores[row], count, item, score)
        _clear_person(items[row], len(decay), tokens, used, person)


@numba.njit("(i8[:,:], f4[:,:], f4[::1], i8[:,:], f4[:,::1], f4[:,::1])", cache=True, nogil=True, fastmath=True)
def _multiply(items, weights, decay, candidates, vectors, scores):  # type: ignore[no-untyped-def]
    person = np.empty(vectors.shape[1], np.float32)
    for row in range(len(items)):
        person[:] = 0
        for column in range(min(items.shape[1], len(decay))):
            # Named before the loop, which could write to where its place stands, for all that the compiler knows.
            item, share = items[row, column], weights[row, column] * decay[column]
            if item >= 0:
                for d in range(len(person)):
                    person[d] += share * vectors[item, d]
        squares = np.float32(1e-12)
        for d in range(len(person)):
            squares += person[d] * person[d]
        scale = np.float32(1) / np.sqrt(squares)
        for c in range(candidates.shape[1]):
            if candidates[row, c] >= 0:
                product = np.float32(0)
                for d in range(len(person)):
                    product += person[d] * vectors[candidates[row, c], d]
                scores[row, c] = max(product * scale, np.float32(0))


@numba.njit("(i8[:,:], i8[:,:], u2[:,::1], u1[::1], f4[::1], f4[:,::1], i8[:,:])", cache=True, nogil=True)
def _closest(items, listed, tokens, used, idf, vectors, columns):  # type: ignore[no-untyped-def]
    for row in range(len(items)):
        for k in range(listed.shape[1]):
            item, most = listed[row, k], np.float32(0)
            if item < 0:
                continue
            for column in range(items.shape[1]):
                own = items[row, column]
                if own < 0:
                    continue
                shared, alike = np.float32(0), np.float32(0)
                for n in range(used[item]):
                    for m in range(used[own]):
                        if tokens[item, n] == tokens[own, m]:
                            shared += idf[tokens[item, n]] * idf[tokens[item, n]]
                for d in range(vectors.shape[1]):
                    alike += vectors[item, d] * vectors[own, d]
                score = shared / (_length(item, tokens, used, idf) * _length(own, tokens, used, idf))
                score += max(alike, np.float32(0))
                if score > most:
                    most, columns[row, k] = score, column
