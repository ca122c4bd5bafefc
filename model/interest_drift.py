"""Whether a person's interests have changed: what they take now against what they took before.

The score of the last `window` actions is the log likelihood ratio of "somebody else" against "this person", where
somebody else takes categories as the whole shop does, and this person to `loyalty` as they did before; each category
counts once. Before means more than `window` actions ago, so that a new interest cannot vouch for itself. A ratio of the
kind is the best that a test of so many actions can look at (Neyman, Pearson, 1933; over time, Page, "Continuous
inspection schemes", Biometrika 41, 1954).
"""

import math
from collections import Counter
from dataclasses import dataclass
from zlib import crc32

import msgspec

VERSION = 1
"""The first byte of packed interests."""


@dataclass(frozen=True)
class DriftOptions:
    """Each action on an item that was there before lowers the score, by `known_item` times a logarithm. Of a person are
    kept the `window` newest actions, the `categories` that count most of those before, and `items` of them. Above
    `threshold` their interests have changed, once there are `least` actions before; after that the window's are what
    was before."""

    window: int = 30
    loyalty: float = 0.2
    known_item: float = 3.0
    categories: int = 128
    items: int = 256
    least: int = 30
    threshold: float = 2.0


class Shares:
    """How often each category is taken in the whole shop, of the newest `memory` actions or so."""

    def __init__(self, memory: int = 1_000_000) -> None:
        self._counts, self._total, self._memory = Counter[str](), 0, memory

    def add(self, category: str) -> None:
        """One more action."""
        self._counts[category] += 1
        self._total += 1
        if self._total >= self._memory:
            self._counts = Counter({name: count // 2 for name, count in self._counts.items() if count > 1})
            self._total = self._counts.total()

    def of(self, category: str) -> float:
        """The category's share, above 0 for one that nobody has taken too."""
        return (self._counts[category] + 0.3) / (self._total + 0.3 * max(len(self._counts), 100))


class Interests(msgspec.Struct, array_like=True):
    """The state of one person: the categories, items (as CRC-32) and times of the newest actions, oldest first; of
    those before, how often each category was taken, and the items."""

    categories: list[str] = []
    items: list[int] = []
    times: list[int] = []
    before: dict[str, int] = {}
    known: list[int] = []


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Interests)


def pack_interests(interests: Interests) -> bytes:
    """The interests as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(interests)


def unpack_interests(packed: bytes) -> Interests:
    """The inverse of `pack_interests`. Raises ValueError on a version that this code does not know."""
    if packed[0] != VERSION:
        raise ValueError(f"interests have version {packed[0]}, this code reads {VERSION}")
    return _decoder.decode(memoryview(packed)[1:])


def follow(
    interests: Interests, category: str, item: str, time_ms: int, shares: Shares, options: DriftOptions
) -> float:
    """Take one action, in place, and return the score, -inf while too little is known."""
    interests.categories.append(category)
    interests.items.append(crc32(item.encode()))
    interests.times.append(time_ms)
    if len(interests.categories) > options.window:
        _age(interests, options)
    total = sum(interests.before.values())
    if total < options.least:
        return -math.inf
    known = set(interests.known)
    score = -options.known_item * math.log1p(sum(one in known for one in interests.items))
    for name in set(interests.categories):
        own = interests.before.get(name, 0) / total
        score -= math.log(options.loyalty * own / shares.of(name) + 1 - options.loyalty)
    return score


def drifted(interests: Interests, score: float, options: DriftOptions) -> bool:
    """Whether the score says that interests have changed; then the newest actions are what was before, and nothing
    else."""
    if score <= options.threshold:
        return False
    interests.before, interests.known = {}, []
    while interests.categories:
        _age(interests, options)
    return True


def _age(interests: Interests, options: DriftOptions) -> None:
    """The oldest of the newest actions is one of those before."""
    category, item = interests.categories.pop(0), interests.items.pop(0)
    interests.times.pop(0)
    interests.before[category] = interests.before.get(category, 0) + 1
    if len(interests.before) > options.categories:
        del interests.before[min(interests.before, key=lambda name: (interests.before[name], name == category))]
    if item not in interests.known:
        interests.known = [*interests.known, item][-options.items :]
