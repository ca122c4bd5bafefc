"""Whether a person's interests have changed: what they take now against what they took before.

The score of the last `window` actions is the log likelihood ratio of "somebody else" against "this person", where
somebody else takes categories as the whole shop does, and this person to `loyalty` as they did before, the newest most;
each category counts once. A ratio of the kind is the best that a test of so many actions can look at (Neyman, Pearson,
1933). Before means more than `window` actions ago, so that a new interest cannot vouch for itself.

It is looked at only where the first of these actions began a session, as interests are taken to change between them:
elsewhere the window would hold actions of before the change, one of which can vouch for all, and each look more is one
more chance of a false alarm. By what the whole shop takes nothing is said before `shop` actions have been seen.
"""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from zlib import crc32

import msgspec

VERSION = 2
"""The first byte of packed interests."""


@dataclass(frozen=True)
class DriftOptions:
    """Each action on an item that was there before lowers the score, by `known_item` times a logarithm. Of a person are
    kept the `window` newest actions, and the categories and items of the `remembered` actions before; the weight of a
    category halves with each `half_life` actions. A session begins after `pause_ms` without an action. Above
    `threshold` interests have changed, once there are `least` actions before, and `shop` of all people; after that the
    window's are what was before."""

    window: int = 30
    loyalty: float = 0.2
    known_item: float = 4.0
    half_life: float = 20.0
    remembered: int = 256
    least: int = 100
    shop: int = 500
    pause_ms: int = 600_000
    threshold: float = -0.5


class Shares:
    """How often each category is taken in the whole shop, of the newest `memory` actions or so."""

    def __init__(self, memory: int = 1_000_000) -> None:
        self._counts, self.total, self._memory = Counter[str](), 0, memory

    def add(self, category: str) -> None:
        """One more action."""
        self._counts[category] += 1
        self.total += 1
        if self.total >= self._memory:
            self._counts = Counter({name: count // 2 for name, count in self._counts.items() if count > 1})
            self.total = self._counts.total()

    def of(self, category: str) -> float:
        """The category's share, above 0 for one that nobody has taken too."""
        return (self._counts[category] + 0.3) / (self.total + 0.3 * max(len(self._counts), 100))


class Interests(msgspec.Struct, array_like=True):
    """The state of one person: by time, oldest first, the categories, items (as CRC-32) and times of the newest
    actions, and the categories, and items without repetition, of those before; when the last of those before was, -1
    for none."""

    categories: list[str] = []
    items: list[int] = []
    times: list[int] = []
    before: list[str] = []
    known: list[int] = []
    before_ms: int = -1


class _FirstInterests(msgspec.Struct, array_like=True):
    """Version 1: of those before how often each category was taken, not in which order."""

    categories: list[str]
    items: list[int]
    times: list[int]
    before: dict[str, int]
    known: list[int]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Interests)
_first_decoder = msgspec.msgpack.Decoder(_FirstInterests)


def pack_interests(interests: Interests) -> bytes:
    """The interests as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(interests)


def unpack_interests(packed: bytes) -> Interests:
    """The inverse of `pack_interests`, and what its version 1 packed. Raises ValueError on another version."""
    if packed[0] == 1:
        first = _first_decoder.decode(memoryview(packed)[1:])
        # In proportion, each category as evenly as it can be.
        share = min(1.0, DriftOptions.remembered / max(sum(first.before.values()), 1))
        copies = {name: round(count * share) for name, count in first.before.items()}
        places = (
            ((n + crc32(name.encode()) / 2**32) / count, name) for name, count in copies.items() for n in range(count)
        )
        before = [name for _, name in sorted(places)]
        # They stood as they came.
        order = sorted(range(len(first.times)), key=first.times.__getitem__)
        return Interests(
            [first.categories[n] for n in order],
            [first.items[n] for n in order],
            [first.times[n] for n in order],
            before,
            first.known,
        )
    if packed[0] != VERSION:
        raise ValueError(f"interests have version {packed[0]}, this code reads 1 and {VERSION}")
    return _decoder.decode(memoryview(packed)[1:])


def follow(
    interests: Interests, category: str, item: str, time_ms: int, shares: Shares, options: DriftOptions
) -> float:
    """Take one action, in place, and return the score, -inf where it is not to be looked at. Actions may come a little
    out of order."""
    place = bisect_right(interests.times, time_ms)
    # What comes so late is one of those before at once, and the newest are what was looked at already.
    looked_at = place == 0 and len(interests.times) == options.window
    interests.categories.insert(place, category)
    interests.items.insert(place, crc32(item.encode()))
    interests.times.insert(place, time_ms)
    if len(interests.categories) > options.window:
        _age(interests, options)
    begins = interests.times[0] - interests.before_ms > options.pause_ms
    enough = len(interests.before) >= options.least and shares.total >= options.shop
    if len(interests.categories) < options.window or looked_at or not enough or not begins:
        return -math.inf
    weight, fading = 1.0, 0.5 ** (1 / options.half_life)
    own: dict[str, float] = defaultdict(float)
    for name in reversed(interests.before):
        own[name] += weight
        weight *= fading
    total, known = sum(own.values()), set(interests.known)
    score = -options.known_item * math.log1p(sum(one in known for one in interests.items))
    for name in set(interests.categories):
        score -= math.log(options.loyalty * own.get(name, 0.0) / total / shares.of(name) + 1 - options.loyalty)
    return score


def drifted(interests: Interests, score: float, options: DriftOptions) -> bool:
    """Whether the score says that interests have changed; then the newest actions are what was before, and nothing
    else."""
    if score <= options.threshold:
        return False
    interests.before, interests.known = [], []
    while interests.categories:
        _age(interests, options)
    return True


def _age(interests: Interests, options: DriftOptions) -> None:
    """The oldest of the newest actions is one of those before."""
    item = interests.items.pop(0)
    interests.before.append(interests.categories.pop(0))
    del interests.before[: -options.remembered]
    interests.before_ms = max(interests.before_ms, interests.times.pop(0))
    if item not in interests.known:
        interests.known.append(item)
        del interests.known[: -options.remembered]
