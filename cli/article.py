"""The worked case of an article: 1,000 people rate 10,000 items from 0 to 5, and what they would rate is known."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.rating_prediction import RatingPrediction

PEOPLE, ITEMS, KINDS, LIKED_FROM = 1_000, 10_000, 20, 3.0
_TASTES, _NOISE, _START = 4, 0.5, 1_600_000_000_000
Floats = npt.NDArray[np.float64]


class Ratings(NamedTuple):
    """The ratings in their order: `users` and `items` int64 [n], what was `rated` and what is the `truth` float64 [n],
    and of each person the true `tastes` float64 [PEOPLE, 4]."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    rated: Floats
    truth: Floats
    tastes: Floats


def ratings(count: int, seed: int = 7) -> Ratings:
    """So many ratings, the same for the same seed. A rating is 3, plus what the person is given to, plus how good the
    item is, plus how well it suits their taste, plus noise of a standard deviation of .5, and lies from 0 to 5. Items
    are rated by a Zipf law, each by a person at most once."""
    chance = np.random.default_rng(seed)
    tastes = chance.normal(0, 0.5, (PEOPLE, _TASTES))
    # Items of a kind are alike.
    kinds = chance.normal(0, 0.8, (KINDS, _TASTES))
    qualities = kinds[np.arange(ITEMS) % KINDS] + chance.normal(0, 0.2, (ITEMS, _TASTES))
    given, good = chance.normal(0, 0.4, PEOPLE), chance.normal(0, 0.4, ITEMS)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    users = chance.integers(0, PEOPLE, 3 * count)
    items = chance.choice(ITEMS, 3 * count, p=popularity / popularity.sum())
    _, once = np.unique(users * ITEMS + items, return_index=True)
    chosen = np.sort(once)[:count]
    users, items = users[chosen], items[chosen]
    truth = np.clip(3 + given[users] + good[items] + (tastes[users] * qualities[items]).sum(1), 0, 5)
    rated = np.clip(truth + chance.normal(0, _NOISE, len(truth)), 0, 5).round(1)
    return Ratings(users, items, rated, truth, tastes)


def events(given: Ratings) -> Iterator[dict[str, Any]]:
    """The ratings as events, a second apart."""
    for n, (user, item, rating) in enumerate(zip(given.users, given.items, given.rated, strict=True)):
        yield {
            "event_id": f"rating-{n}",
            "user_id": f"user-{user}",
            "event_type": "rating",
            "timestamp": _START + 1000 * n,
            "item_id": f"item-{item}",
            "value": float(rating),
        }


def catalogue() -> Iterator[dict[str, Any]]:
    """The items."""
    for n in range(ITEMS):
        yield {"item_id": f"item-{n}", "title": f"Item {n}", "category": [f"Kind {n % KINDS}"]}


def figures(given: Ratings) -> dict[str, float]:
    """How well ratings are predicted, each before it is learned from, over the last half: root mean squared errors
    against what was rated and against the truth, beside the noise floor, which no prediction of what is rated can pass,
    and the mean; and how alike the true tastes of the five nearest people are, beside any two."""
    model = RatingPrediction(PEOPLE, np.arange(ITEMS) % KINDS)
    half = len(given.users) // 2
    predicted = model.learn(given.users, given.items, given.rated)[half:]
    rated, truth = given.rated[half:], given.truth[half:]
    directions = given.tastes / np.linalg.norm(given.tastes, axis=1, keepdims=True)
    active = np.flatnonzero(np.bincount(given.users, minlength=PEOPLE) >= 10)
    near = [float((directions[model.neighbours(user, 5)[0]] @ directions[user]).mean()) for user in active.tolist()]
    return {
        "rating_rmse": _rmse(predicted, rated),
        "rating_rmse_noise_floor": _rmse(truth, rated),
        "rating_rmse_of_the_mean": _rmse(np.full(len(rated), given.rated[:half].mean()), rated),
        "rating_rmse_against_truth": _rmse(predicted, truth),
        "neighbours_alike": float(np.mean(near)) if near else 0.0,
        "anybody_alike": float((directions[active] @ directions[active].T).mean()) if len(active) else 0.0,
    }


def _rmse(one: Floats, other: Floats) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))
