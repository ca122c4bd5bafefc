"""Predicted ratings: near the noise floor where the truth is known, and the same however ratings are cut."""

import numpy as np
import pytest

from cli.article import ITEMS, KINDS, PEOPLE, events, figures, ratings
from model.rating_prediction import RatingPrediction

pytestmark = pytest.mark.unit
KIND = np.arange(ITEMS) % KINDS


def test_the_more_is_rated_the_nearer_predictions_come_to_the_noise_floor() -> None:
    few, many = (figures(ratings(count)) for count in (5_000, 100_000))
    for found in (few, many):
        assert found["rating_rmse_noise_floor"] == pytest.approx(0.49, abs=0.01)
        assert found["rating_rmse_noise_floor"] < found["rating_rmse"] < found["rating_rmse_of_the_mean"]
    assert many["rating_rmse"] < 0.65 < few["rating_rmse"]
    assert many["rating_rmse_against_truth"] < 0.4
    assert many["neighbours_alike"] > 0.7 > 0.1 > abs(many["anybody_alike"])


def test_ratings_in_parts_are_predicted_as_all_at_once() -> None:
    given = ratings(600)
    whole = RatingPrediction(PEOPLE, KIND).learn(given.users, given.items, given.rated)
    model, found = RatingPrediction(PEOPLE, KIND), []
    for begin in range(0, 600, 77):
        part = slice(begin, begin + 77)
        found.append(model.learn(given.users[part], given.items[part], given.rated[part]))
    assert np.concatenate(found) == pytest.approx(whole)
    assert model.predict(given.users, given.items).min() >= 0
    nearest, alike = model.neighbours(3, 5)
    assert 3 not in nearest
    assert (np.diff(alike) <= 0).all()


def test_the_case_is_what_it_says_and_the_same_again() -> None:
    given, again = ratings(2_000), ratings(2_000)
    assert (given.rated == again.rated).all()
    assert len(given.users) == 2_000 == len({*zip(given.users.tolist(), given.items.tolist(), strict=True)})
    assert given.rated.min() >= 0 <= given.rated.max() <= 5
    assert given.users.max() < PEOPLE
    assert given.items.max() < ITEMS
    first, *_, last = events(given)
    assert first["event_type"] == "rating"
    assert last["timestamp"] - first["timestamp"] == 1_999_000
    assert np.abs(given.rated - given.truth).mean() == pytest.approx(0.39, abs=0.03)
