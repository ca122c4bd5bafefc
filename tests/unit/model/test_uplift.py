"""Uplift: it finds for whom an offer changes something, and order, batches and packing change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.uplift import COLUMNS, Uplift, features_of, pack_uplifts, qini, unpack_uplifts, uplift_at

pytestmark = pytest.mark.unit


def people(size: int, seed: int) -> tuple[list[dict[str, float]], np.ndarray, np.ndarray, np.ndarray]:
    """Features, who got the offer, who reached the outcome, and by how much the offer adds to it: only for the young,
    who do not come often anyway."""
    random = np.random.default_rng(seed)
    young, often = random.random(size) < 0.3, random.random(size) < 0.5
    added = np.where(young, 0.3, 0.0)
    offered = random.random(size) < 0.5
    reached = random.random(size) < 0.1 + 0.4 * often + added * offered
    features = [
        features_of({"age": "young" if y else "old", "visits": 9.0 if o else 1.0})
        for y, o in zip(young, often, strict=True)
    ]
    return features, offered, reached.astype(np.float64), added


def test_it_finds_for_whom_the_offer_changes_something_where_a_response_model_does_not() -> None:
    model, (features, offered, reached, _) = Uplift(), people(6000, 1)
    model.learn(features, offered.tolist(), reached.tolist())
    features, offered, reached, added = people(6000, 2)
    score, response = model.score(features), model.response(features)
    assert np.corrcoef(score, added)[0, 1] > 0.95
    # The penalty takes from both sides.
    assert score[added > 0].mean() > 0.15 > 0.06 > abs(score[added == 0].mean())
    assert uplift_at(0.3, score, offered, reached) > 0.25 > uplift_at(0.3, response, offered, reached)
    assert qini(score, offered, reached) > 1.5 * max(qini(response, offered, reached), 0)
    assert model.people == (int((~people(6000, 1)[1]).sum()), int(people(6000, 1)[1].sum()))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(60)), st.integers(1, 60))
def test_order_batches_and_packing_change_nothing(order: list[int], size: int) -> None:
    features, offered, reached, _ = people(60, 3)
    whole, parts = Uplift(), Uplift()
    whole.learn(features, offered.tolist(), reached.tolist())
    for begin in range(0, 60, size):
        places = order[begin : begin + size]
        parts.learn([features[n] for n in places], [offered[n] for n in places], [reached[n] for n in places])
        parts = Uplift.unpack(parts.pack())
    assert parts.score(features) == pytest.approx(whole.score(features), abs=1e-9)


def test_numbers_lie_between_powers_of_two_and_categories_stand_alone() -> None:
    assert features_of({"n": 0, "sign": -1.0, "name": "x", "yes": True}) == {
        "n~0": 1.0,
        "sign~-1": 1.0,
        "name=x": 1.0,
        "yes=True": 1.0,
    }
    between = features_of({"n": 2.0})
    assert set(between) == {"n~1", "n~2"}
    assert sum(between.values()) == 1.0


def test_there_are_no_more_columns_however_many_names_there_are_and_an_unknown_name_says_nothing() -> None:
    model = Uplift()
    for n in range(3 * COLUMNS):
        model.learn([features_of({"name": f"x{n}"})], [n % 2 == 0], [1.0])
    assert model.products.shape == (2, COLUMNS, COLUMNS)
    few = Uplift()
    few.learn([features_of({"name": "a"})] * 4, [True, True, False, False], [1.0, 1.0, 0.0, 0.0])
    assert few.score([features_of({"name": "a"})]) == pytest.approx([1.0], abs=1e-6)
    assert few.score([{"unknown": 1.0}]) == pytest.approx(few.score([{}]))
    with pytest.raises(ValueError, match="version 9"):
        Uplift.unpack(b"\x09" + few.pack()[1:])


def test_measures_on_a_known_case() -> None:
    # Two people of each kind: with the offer the first kind comes, without it does not; the second kind always comes.
    score = np.array([4.0, 3.0, 2.0, 1.0])
    offered, reached = np.array([True, False, True, False]), np.array([1.0, 0.0, 1.0, 1.0])
    assert uplift_at(0.5, score, offered, reached) == 1.0
    assert uplift_at(1.0, score, offered, reached) == 0.5
    # The curve is .5, .5, 1, .5 per person with an offer; at random it would be .125, .25, .375, .5.
    assert qini(score, offered, reached) == pytest.approx(0.3125)


def test_the_models_of_several_offers_come_back_and_so_does_the_one_of_before() -> None:
    models = {name: Uplift() for name in ("ten", "free")}
    models["free"].learn([features_of({"name": "a"})] * 4, [True, True, False, False], [1.0, 1.0, 0.0, 0.0])
    back = unpack_uplifts(pack_uplifts(models))
    assert {name: model.pack() for name, model in back.items()} == {name: one.pack() for name, one in models.items()}
    assert unpack_uplifts(models["free"].pack())[""].people == (2, 2)
    with pytest.raises(ValueError, match="version 9"):
        unpack_uplifts(b"\x09")


def test_features_have_the_same_columns_whatever_the_seed_of_hashes() -> None:
    model = Uplift()
    model.learn([dict.fromkeys("dbca", 1.0)], [True], [1.0])
    assert list(model._columns) == ["", "a", "b", "c", "d"]
