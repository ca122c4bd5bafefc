"""For whom an offer changes something: the chance of an outcome with it less that without, learned in one pass.

Two ridge regressions, one for people with the offer and one for those without, whose difference is the uplift (the
T-learner of Kuenzel, Sekhon, Bickel, Yu, "Metalearners for estimating heterogeneous treatment effects using machine
learning", PNAS 2019). Their sums are all that is kept, so that neither the order of people nor how they are cut into
batches matters. The penalty is in proportion to each feature's variance (Hoerl, Kennard, "Ridge regression", 1970), so
that no feature's scale matters.
"""

import math
from collections.abc import Mapping, Sequence
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from model.arrays import pack_array, unpack_array

VERSION = 1
"""The first byte of a packed model."""
_SEVERAL = 2
COLUMNS = 256
"""How many features there are: beyond the first so many names, several share one."""
_SHRINK = 1.0
Floats = npt.NDArray[np.float64]


class _Packed(msgspec.Struct, array_like=True):
    names: dict[str, int]
    products: bytes
    outcomes: bytes


def features_of(values: Mapping[str, float | str | bool]) -> dict[str, float]:
    """Named values as features: a category as one of its own, a number by the powers of two between which it lies, each
    in proportion to how near it is, in steps of a sixteenth."""
    features: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, str | bool):
            features[f"{name}={value}"] = 1.0
            continue
        whole, rest = divmod(round(16 * math.log2(1 + abs(value))), 16)
        sign = "-" if value < 0 else ""
        for knot, share in ((whole, 16 - rest), (whole + 1, rest)):
            if share:
                features[f"{name}~{sign}{knot}"] = share / 16
    return features


class Uplift:
    """`products` float64 [2, n, n] and `outcomes` float64 [2, n] are the sums of x x' and of x y, without and with the
    offer; the first column is 1 for everybody."""

    def __init__(self) -> None:
        self._columns = {"": 0}
        self.products, self.outcomes = np.zeros((2, 1, 1)), np.zeros((2, 1))
        self._weights: Floats | None = None

    @property
    def people(self) -> tuple[int, int]:
        """How many it has learned from, without and with the offer."""
        return int(self.products[0, 0, 0]), int(self.products[1, 0, 0])

    def learn(self, people: Sequence[Mapping[str, float]], offered: Sequence[bool], outcome: Sequence[float]) -> None:
        """Learn from what came of people with these `features_of`."""
        rows, arms, reached = self._rows(people, grow=True), np.array(offered, bool), np.array(outcome, np.float64)
        for arm in (0, 1):
            mine = arms == arm
            self.products[arm] += rows[mine].T @ rows[mine]
            self.outcomes[arm] += rows[mine].T @ reached[mine]
        self._weights = None

    def score(self, people: Sequence[Mapping[str, float]]) -> Floats:
        """How much the offer adds to the outcome of each: float64 [n]."""
        if self._weights is None:
            self._weights = _solved(self.products[1], self.outcomes[1]) - _solved(self.products[0], self.outcomes[0])
        return np.asarray(self._rows(people, grow=False) @ self._weights)

    def response(self, people: Sequence[Mapping[str, float]]) -> Floats:
        """The outcome of each, whether or not with the offer, as a response model has it: float64 [n]."""
        return np.asarray(self._rows(people, grow=False) @ _solved(self.products.sum(0), self.outcomes.sum(0), 0.01))

    def _rows(self, people: Sequence[Mapping[str, float]], grow: bool) -> Floats:
        if grow:
            # In an order that hangs on the names alone.
            for name in sorted({name for features in people for name in features} - self._columns.keys()):
                if len(self._columns) < COLUMNS:
                    self._columns[name] = len(self._columns)
            more = len(self._columns) - len(self.products[0])
            self.products = np.pad(self.products, ((0, 0), (0, more), (0, more)))
            self.outcomes = np.pad(self.outcomes, ((0, 0), (0, more)))
        rows = np.zeros((len(people), len(self.products[0])))
        rows[:, 0] = 1
        for row, features in zip(rows, people, strict=True):
            for name, value in features.items():
                column = self._columns.get(name, -1)
                if column < 0 and len(self._columns) >= COLUMNS:
                    column = 1 + crc32(name.encode()) % (COLUMNS - 1)
                if 0 <= column < len(row):
                    row[column] += value
        return rows

    def pack(self) -> bytes:
        """A version byte and the sums as MessagePack."""
        state = _Packed(self._columns, pack_array(self.products), pack_array(self.outcomes))
        return bytes((VERSION,)) + msgspec.msgpack.encode(state)

    @classmethod
    def unpack(cls, packed: bytes) -> "Uplift":
        """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
        if packed[0] != VERSION:
            raise ValueError(f"uplift has version {packed[0]}, this code reads {VERSION}")
        state, model = msgspec.msgpack.decode(memoryview(packed)[1:], type=_Packed), cls()
        model._columns, size = state.names, len(state.names)
        model.products = unpack_array(state.products, np.float64).reshape(2, size, size).copy()
        model.outcomes = unpack_array(state.outcomes, np.float64).reshape(2, size).copy()
        return model


def pack_uplifts(models: Mapping[str, Uplift]) -> bytes:
    """A campaign's models, by the names of its offers, as a version byte and MessagePack."""
    return bytes((_SEVERAL,)) + msgspec.msgpack.encode({name: model.pack() for name, model in models.items()})


def unpack_uplifts(packed: bytes) -> dict[str, Uplift]:
    """The inverse of `pack_uplifts`; the first version was one packed `Uplift`, of the offer "". Raises ValueError on a
    version that this code does not know."""
    if packed[0] != _SEVERAL:
        return {"": Uplift.unpack(packed)}
    models = msgspec.msgpack.decode(memoryview(packed)[1:], type=dict[str, bytes])
    return {name: Uplift.unpack(model) for name, model in models.items()}


def qini(score: Floats, offered: npt.NDArray[np.bool_], outcome: Floats, seed: int = 0) -> float:
    """Qini coefficient: the mean over all shares of people, taken by `score`, the best first, of the outcomes that
    their offers added, per person with an offer, less that of as many taken at random. Ties fall in an order that
    `seed` gives.

    Source: Radcliffe, "Using control groups to target on predicted lift", Direct Marketing Analytics Journal 2007.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(score)), -score))
    with_offer, reached = offered[order].astype(np.float64), outcome[order]
    many, few = np.cumsum(with_offer), np.cumsum(1 - with_offer)
    without = np.cumsum((1 - with_offer) * reached) * many / np.maximum(few, 1)
    curve = (np.cumsum(with_offer * reached) - without) / many[-1]
    share = np.arange(1, len(score) + 1) / len(score)
    return float(np.mean(curve - share * curve[-1]))


def uplift_at(share: float, score: Floats, offered: npt.NDArray[np.bool_], outcome: Floats, seed: int = 0) -> float:
    """The mean outcome with the offer less that without, among the `share` of people of the largest score."""
    order = np.lexsort((np.random.default_rng(seed).random(len(score)), -score))[: int(share * len(score))]
    mine, reached = offered[order], outcome[order]
    return float(reached[mine].mean() - reached[~mine].mean())


def _solved(products: Floats, outcomes: Floats, shrink: float = _SHRINK) -> Floats:
    """Ridge regression from its sums, with a free constant."""
    people = products[0, 0]
    variance = np.maximum(people * np.diag(products) - products[0] ** 2, 0) / max(people, 1)
    return np.linalg.solve(products + np.diag(shrink * variance + 1e-9 * max(people, 1)), outcomes)
