"""What people use today, behind the two calls of a test-then-train replay: a list for a user, then one event."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

import numpy as np


class Peer(Protocol):
    """One way to make lists."""

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:
        """At most k items, best first, none of `excluded`."""

    def learn(self, user: str, item: str) -> None:
        """Take in one interaction."""


class Popularity:
    """The items with the most interactions so far."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._ranked: list[str] = []
        self._learned = 0

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:  # noqa: ARG002
        left_out = set(excluded)
        return list(islice((item for item in self._ranked if item not in left_out), k))

    def learn(self, user: str, item: str) -> None:  # noqa: ARG002
        self._counts[item] += 1
        self._learned += 1
        # Ordered again every hundred events, so that a list costs no sort.
        if self._learned % 100 == 1:
            self._ranked = [item for item, _ in self._counts.most_common()]


class SessionNeighbours:
    """V-SkNN: the `nearest` of the people who took one of a person's `recent` newest items among the last `sampled` of
    them, more alike the newer the items that they share; what they took last counts by that, and by how new the newest
    item is that they share.

    Source: Ludewig, Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 28, 2018, section 3.3.2.
    """

    def __init__(self, recent: int = 10, session: int = 20, sampled: int = 500, nearest: int = 100) -> None:
        self._recent, self._session, self._sampled, self._nearest = recent, session, sampled, nearest
        self._sessions: defaultdict[str, list[str]] = defaultdict(list)
        self._takers: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:
        newest = self._sessions[user][: self._recent]
        similar, shared = defaultdict[str, float](float), dict[str, float]()
        for place, item in enumerate(newest):
            weight = 1 - place / len(newest)
            for other in islice(reversed(self._takers[item]), self._sampled):
                similar[other] += weight
                shared.setdefault(other, weight)
        similar.pop(user, None)
        scores = defaultdict[str, float](float)
        for other, weight in nlargest(self._nearest, similar.items(), itemgetter(1)):
            for item in self._sessions[other]:
                scores[item] += weight * shared[other]
        left_out = set(excluded)
        known = ((item, score) for item, score in scores.items() if item not in left_out)
        return [item for item, _ in nlargest(k, known, itemgetter(1))]

    def learn(self, user: str, item: str) -> None:
        session = self._sessions[user]
        self._sessions[user] = [item, *(other for other in session if other != item)][: self._session]
        takers = self._takers[item]
        takers.pop(user, None)
        takers[user] = None
        if len(takers) > self._sampled:
            del takers[next(iter(takers))]


class Implicit:
    """A model of the library implicit, fitted again whenever the events have grown by `growth`, from 1,000 on. Between
    two fits a person's newest items count for their own lists, as far as the model knows them."""

    def __init__(self, make: Callable[[], Any], growth: float = 0.1) -> None:
        self._make, self._growth = make, growth
        self._users, self._items = dict[str, int](), dict[str, int]()
        self._ids: list[str] = []
        self._interactions: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._model: Any = None
        self._fitted_items = self._learned = 0
        self._due = 1000

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:
        history = self._interactions.get(self._users.get(user, -1))
        if self._model is None or not history:
            return []
        row = self._matrix([history], self._fitted_items)
        if not row.nnz:
            return []
        left_out = [n for item in excluded if (n := self._items.get(item, self._fitted_items)) < self._fitted_items]
        live = {"recalculate_user": True} if hasattr(self._model, "user_factors") else {}
        ids, scores = self._model.recommend(
            0, row, N=k, filter_already_liked_items=False, filter_items=left_out or None, **live
        )
        # Where few items score, it fills up with those that it was to leave out.
        found = [int(item) for item, score in zip(ids, scores, strict=True) if item >= 0 and score > -1e30]
        return [self._ids[item] for item in found if item not in set(left_out)][:k]

    def learn(self, user: str, item: str) -> None:
        row = self._items.setdefault(item, len(self._items))
        if row == len(self._ids):
            self._ids.append(item)
        self._interactions[self._users.setdefault(user, len(self._users))][row] += 1
        self._learned += 1
        if self._learned == self._due:
            self.fit()
            self._due = self._learned + max(round(self._learned * self._growth), 1)

    def fit(self) -> None:
        """Fit the model to all interactions so far."""
        self._fitted_items = len(self._ids)
        self._model = self._make()
        rows = [self._interactions[n] for n in range(len(self._users))]
        self._model.fit(self._matrix(rows, self._fitted_items), show_progress=False)

    @staticmethod
    def _matrix(rows: list[Counter[int]], columns: int) -> Any:
        from scipy.sparse import csr_matrix

        known = [[(item, count) for item, count in sorted(row.items()) if item < columns] for row in rows]
        pairs = [pair for row in known for pair in row]
        indices = np.array([item for item, _ in pairs], np.int32)
        values = np.array([count for _, count in pairs], np.float32)
        return csr_matrix((values, indices, np.cumsum([0, *map(len, known)])), shape=(len(rows), columns))


class River:
    """The biased factorisation of the library river, which learns event by event: each as 1, with `negatives` random
    items as 0."""

    def __init__(self, negatives: int = 4, seed: int = 1) -> None:
        from river import optim, reco

        self._model = reco.BiasedMF(
            n_factors=32, latent_optimizer=optim.SGD(0.05), bias_optimizer=optim.SGD(0.025), l2_latent=0.01, seed=seed
        )
        self._negatives, self._random = negatives, np.random.default_rng(seed)
        self._items: list[str] = []
        self._known: set[str] = set()

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:
        return self._model.rank(user, self._known.difference(excluded))[:k]

    def learn(self, user: str, item: str) -> None:
        if item not in self._known:
            self._known.add(item)
            self._items.append(item)
        self._model.learn_one(user, item, 1.0)
        for n in self._random.integers(0, len(self._items), self._negatives):
            self._model.learn_one(user, self._items[n], 0.0)
