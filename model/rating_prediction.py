"""What a person would rate an item, from 0 to 5, learned rating by rating; and who has the same taste.

Biased matrix factorisation by stochastic gradient descent (Koren, Bell, Volinsky, "Matrix factorization techniques for
recommender systems", IEEE Computer 42, 2009, equations 4 and 5). An item's vector is one of its own and one of its
kind, so that what is learned of a kind holds for an item that few have rated (Kula, "Metadata embeddings for user and
item cold-start recommendations", CBRecSys 2015). Each rating is learned from when it comes, and some of those before
once more, as in Rendle, Schmidt-Thieme, "Online-updating regularized kernel matrix factorization models for large-scale
recommender systems", RecSys 2008. People are alike as their vectors are.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RatingOptions:
    """`replays` older ratings are learned from with each new one. `bias_regularization` and `regularization` draw
    biases and vectors to 0."""

    dimensions: int = 8
    replays: int = 10
    learning_rate: float = 0.02
    bias_regularization: float = 0.02
    regularization: float = 0.05
    lowest: float = 0.0
    highest: float = 5.0
    seed: int = 1


class RatingPrediction:
    """For so many `people`, and items of which `kinds` int64 [items] says of what kind each is. `user_biases` float64
    [people], `item_biases` float64 [items], and vectors of `dimensions` of people, items and kinds."""

    def __init__(self, people: int, kinds: Rows, options: RatingOptions = RatingOptions()) -> None:
        self.options = options
        chance = np.random.default_rng(options.seed)
        self.mean = np.zeros(2)
        items, self._kinds = len(kinds), kinds
        self.user_biases, self.item_biases = np.zeros(people), np.zeros(items)
        self.users = 0.1 * chance.standard_normal((people, options.dimensions))
        self.items = 0.1 * chance.standard_normal((items, options.dimensions))
        self.of_kinds = 0.1 * chance.standard_normal((int(kinds.max(initial=0)) + 1, options.dimensions))
        self._learned: list[Floats] = []
        self._chance = chance

    def predict(self, users: Rows, items: Rows) -> Floats:
        """What each of `users` int64 [n] would rate the item beside it: float64 [n]."""
        mean = self.mean[0] / max(self.mean[1], 1)
        products = (self.users[users] * (self.items[items] + self.of_kinds[self._kinds[items]])).sum(1)
        found = mean + self.user_biases[users] + self.item_biases[items] + products
        return np.asarray(np.clip(found, self.options.lowest, self.options.highest))

    def learn(self, users: Rows, items: Rows, ratings: Floats) -> Floats:
        """Learn from ratings one after another, and return what each was predicted to be before: float64 [n]."""
        options = self.options
        before = np.concatenate([*self._learned, np.stack([users, items, ratings], 1)])
        self._learned = [before]
        first = len(before) - len(users)
        drawn = self._chance.random((len(users), options.replays))
        again = (drawn * (first + np.arange(len(users)))[:, None]).astype(np.int64)
        predicted = np.empty(len(users))
        tables = self.user_biases, self.item_biases, self.users, self.items, self.of_kinds, self._kinds
        rates = options.learning_rate, options.bias_regularization, options.regularization
        given = np.array([*rates, options.lowest, options.highest])
        _learn(before, first, again, *tables, self.mean, given, predicted)
        return predicted

    def neighbours(self, user: int, count: int) -> tuple[Rows, Floats]:
        """The people whose taste is most like the user's, the nearest first, and how much, from -1 to 1: the cosine of
        their vectors."""
        lengths = np.maximum(np.linalg.norm(self.users, axis=1), 1e-12)
        alike = self.users @ self.users[user] / (lengths * lengths[user])
        alike[user] = -2
        nearest = np.argsort(-alike, kind="stable")[:count]
        return nearest, alike[nearest]


@numba.njit(
    "(f8[:,::1], i8, i8[:,::1], f8[::1], f8[::1], f8[:,::1], f8[:,::1], f8[:,::1], i8[::1], f8[::1], f8[::1], f8[::1])",
    cache=True,
    nogil=True,
)
def _learn(  # type: ignore[no-untyped-def]
    ratings, first, again, user_biases, item_biases, users, items, of_kinds, kinds, mean, options, predicted
):
    rate, shrink_bias, shrink, low, high = options
    for n in range(len(predicted)):
        for step in range(again.shape[1] + 1):
            place = first + n if step == 0 else again[n, step - 1]
            user, item, rating = int(ratings[place, 0]), int(ratings[place, 1]), ratings[place, 2]
            kind = kinds[item]
            found = mean[0] / max(mean[1], 1.0) + user_biases[user] + item_biases[item]
            for d in range(users.shape[1]):
                found += users[user, d] * (items[item, d] + of_kinds[kind, d])
            if step == 0:
                predicted[n] = min(max(found, low), high)
                mean[0] += rating
                mean[1] += 1
            error = rating - found
            user_biases[user] += rate * (error - shrink_bias * user_biases[user])
            item_biases[item] += rate * (error - shrink_bias * item_biases[item])
            for d in range(users.shape[1]):
                one, other = users[user, d], items[item, d] + of_kinds[kind, d]
                users[user, d] += rate * (error * other - shrink * one)
                items[item, d] += rate * (error * one - shrink * items[item, d])
                of_kinds[kind, d] += rate * (error * one - shrink * of_kinds[kind, d])
