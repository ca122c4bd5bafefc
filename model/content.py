"""What an item is, in words: how well an item that nobody has taken yet goes with what a person takes.

Items and people are bags of tokens, weighted by inverse document frequency and compared by cosine. Source: Salton and
Buckley, "Term-weighting approaches in automatic text retrieval", Information Processing & Management 24, 1988; a person
is the sum of their items as in Rocchio's relevance feedback (1971). Tokens are hashed, as in Weinberger et al.,
"Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import NamedTuple
from zlib import crc32

import numba
import numpy as np
import numpy.typing as npt

from model.arrays import moved, pack_array, unpack_array
from model.batch import Rows, Weights
from schema.item import Item

TOKENS = 24
"""How many tokens of an item are kept, those of the category first."""
_SPACE = 1 << 16
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ContentOptions:
    """A person is their `recent` newest items, of which the n-th counts (1+n)^-`decay`. Of the `pool` newest items of
    the catalogue those with fewer than `new_until` interactions are new, and for each person the `new_items` of them
    that go best with the person are candidates. `share` of a list's places, rounded down, is given to such items, drawn
    by a softmax of how well they go, over `temperature`."""

    recent: int = 10
    decay: float = 0.5
    pool: int = 256
    new_until: int = 5
    new_items: int = 5
    share: float = 0.05
    temperature: float = 0.1
    seed: int = 1


class NewItems(NamedTuple):
    """For each of B people the new `items` int64 [B, E] that go best with them, best first, -1 for none, and how well:
    `scores` float32 [B, E] from 0 to 1."""

    items: Rows
    scores: Weights


def tokens_of(item: Item) -> bytes:
    """The item's tokens, uint16, each once: its category at each level, brand, price (by powers of 1.5, within its
    category), and the words of title and description, as many as there is room for."""
    tokens = dict.fromkeys(crc32(text.encode()) % _SPACE for text in _texts(item))
    return pack_array(np.array(list(tokens)[:TOKENS], np.uint16))


def _texts(item: Item) -> Iterator[str]:
    path = [level.strip().lower() for level in item.category]
    yield from (f"category:{levels}" for levels in accumulate(path, lambda one, other: f"{one}>{other}"))
    if item.brand:
        yield f"brand:{item.brand.strip().lower()}"
    if item.price:
        yield f"price:{path[-1] if path else ''}:{item.currency}:{round(math.log(item.price, 1.5))}"
    for text in (item.title, item.description):
        yield from (f"word:{word}" for word in _WORD.findall((text or "").lower()))


class Content:
    """`tokens` uint16 [N, TOKENS]: those of each item, of which `used` uint8 [N] come first. On the CPU whatever the
    device is: a list asks for a few hundred items."""

    name = "content"

    def __init__(self, options: ContentOptions) -> None:
        self.options = options
        self.tokens = np.zeros((0, TOKENS), np.uint16)
        self.used = np.zeros(0, np.uint8)
        self._decay = (1 + np.arange(options.recent, dtype=np.float32)) ** np.float32(-options.decay)
        # The rows with content, in the order in which they came, and how many items have each token.
        self._arrived: dict[int, None] = {}
        self._frequency = np.zeros(_SPACE, np.int64)
        # Inverse document frequency float32, as of `_documents` items: a power of two, so that a further item mostly
        # changes that of its own tokens alone.
        self._documents, self._idf = 1, np.zeros(_SPACE, np.float32)

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        missing = items - len(self.used)
        if missing > 0:
            self.tokens = np.vstack([self.tokens, np.zeros((missing, TOKENS), np.uint16)])
            self.used = np.append(self.used, np.zeros(missing, np.uint8))

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        places = moved(rows, len(self.used))
        self.tokens, self.used = self.tokens[rows], self.used[rows]
        self._arrived = {int(places[row]): None for row in self._arrived if places[row] >= 0}
        self._count()

    def follow(self, rows: Iterable[int], contents: Iterable[bytes]) -> None:
        """Take the tokens of the items in `rows`, as `tokens_of` packs them; nothing where an item has none."""
        for row, packed in zip(rows, contents, strict=True):
            if not packed:
                continue
            tokens = unpack_array(packed, np.uint16)[:TOKENS]
            before = self.tokens[row, : self.used[row]].copy()
            self._frequency[before] -= 1
            self._frequency[tokens] += 1
            self.tokens[row, : len(tokens)], self.used[row] = tokens, len(tokens)
            self._arrived.setdefault(row)
            self._weigh(np.concatenate([before, tokens]))

    def score_candidates(self, items: Rows, weights: Weights, candidates: Rows) -> Weights:
        """How well each of `candidates` int64 [B, C] (-1 for none) goes with a history `items` int64 [B, H], newest
        first, with `weights` float32 [B, H]: float32 [B, C] from 0 to 1."""
        scores = np.zeros(candidates.shape, np.float32)
        if self._arrived:
            _score(items, weights, self._decay, candidates, self.tokens, self.used, self._idf, scores)
        return scores

    def pool(self, counts: Weights, blocked: npt.NDArray[np.bool_]) -> Rows:
        """The rows of new items, the newest first; `counts` float32 [N] are interactions, and `blocked` bool [N] items
        are left out."""
        newest = np.fromiter(islice(reversed(self._arrived), self.options.pool), np.int64)
        return newest[(counts[newest] < self.options.new_until) & ~blocked[newest]]

    def new_items(self, items: Rows, weights: Weights, excluded: Rows, bounds: Rows, pool: Rows) -> NewItems:
        """Those of the `pool` int64 [P] that go best with each history, of equals the first, and any with one of which
        nothing is known; but none that stands in the history, or in row n's `excluded` int64 from `bounds[n]` to
        `bounds[n + 1]`."""
        size = min(self.options.new_items, len(pool))
        found = NewItems(np.full((len(items), size), -1), np.zeros((len(items), size), np.float32))
        if size:
            content = self.tokens, self.used, self._idf
            _best(items, weights, self._decay, pool, excluded, bounds, *content, *found)
        return found

    def _weigh(self, tokens: npt.NDArray[np.uint16]) -> None:
        """Bring the inverse document frequencies up to date, where those of `tokens` have changed."""
        documents = 1 << len(self._arrived).bit_length()
        changed = tokens if documents == self._documents else np.arange(_SPACE)
        self._documents = documents
        self._idf[changed] = np.log(1 + documents / (1 + self._frequency[changed]))

    def _count(self) -> None:
        held = np.arange(TOKENS) < self.used[:, None]
        self._frequency = np.bincount(self.tokens[held], minlength=_SPACE)
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
        }

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`."""
        self.used = unpack_array(arrays["used"], np.uint8)
        self.tokens = np.zeros((len(self.used), TOKENS), np.uint16)
        self.tokens[np.arange(TOKENS) < self.used[:, None]] = unpack_array(arrays["tokens"], np.uint16)
        self._arrived = dict.fromkeys(unpack_array(arrays["arrived"], np.int64).tolist())
        self._count()


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
def _cosine(item, tokens, used, idf, person):  # type: ignore[no-untyped-def]
    product = np.float32(0)
    for n in range(used[item]):
        product += person[tokens[item, n]] * idf[tokens[item, n]]
    return product / _length(item, tokens, used, idf)


@numba.njit("(i8[:,:], f4[:,:], f4[::1], i8[:,:], u2[:,::1], u1[::1], f4[::1], f4[:,::1])", cache=True, nogil=True)
def _score(items, weights, decay, candidates, tokens, used, idf, scores):  # type: ignore[no-untyped-def]
    person = np.zeros(len(idf), np.float32)
    for row in range(len(items)):
        _add_person(items[row], weights[row], decay, tokens, used, idf, person)
        for c in range(candidates.shape[1]):
            if candidates[row, c] >= 0:
                scores[row, c] = _cosine(candidates[row, c], tokens, used, idf, person)
        _clear_person(items[row], len(decay), tokens, used, person)


@numba.njit(
    "(i8[:,:], f4[:,:], f4[::1], i8[::1], i8[::1], i8[::1], u2[:,::1], u1[::1], f4[::1], i8[:,::1], f4[:,::1])",
    cache=True,
    nogil=True,
)
def _best(items, weights, decay, pool, excluded, bounds, tokens, used, idf, found, scores):  # type: ignore[no-untyped-def]
    person = np.zeros(len(idf), np.float32)
    size = found.shape[1]
    for row in range(len(items)):
        known = _add_person(items[row], weights[row], decay, tokens, used, idf, person)
        count = 0
        for item in pool:
            score = _cosine(item, tokens, used, idf, person)
            if (known and score == 0) or (count == size and score <= scores[row, size - 1]):
                continue
            barred = False
            for column in range(items.shape[1]):
                barred |= items[row, column] == item
            for n in range(bounds[row], bounds[row + 1]):
                barred |= excluded[n] == item
            if barred:
                continue
            place = min(count, size - 1)
            while place > 0 and score > scores[row, place - 1]:
                found[row, place], scores[row, place] = found[row, place - 1], scores[row, place - 1]
                place -= 1
            found[row, place], scores[row, place] = item, score
            count = min(count + 1, size)
        _clear_person(items[row], len(decay), tokens, used, person)
