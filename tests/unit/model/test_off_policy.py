"""Off-policy estimators, where the truth is known."""

import numpy as np
import pytest

from model.off_policy import doubly_robust, inverse_propensity, self_normalised

pytestmark = pytest.mark.unit
CLICKED = np.array([0.05, 0.1, 0.2, 0.4])
LOGGED, TARGET = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.1, 0.1, 0.7])
TRUTH = float(CLICKED @ TARGET)


def log(seed: int, size: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    actions = random.choice(4, size, p=LOGGED)
    return actions, (random.random(size) < CLICKED[actions]).astype(float)


def predicted(actions: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return by[actions], np.full(len(actions), by @ TARGET)


def test_of_the_policy_that_was_logged_it_is_the_mean_with_its_standard_error() -> None:
    actions, rewards = log(1)
    for estimator in (inverse_propensity, self_normalised):
        found = estimator(rewards, LOGGED[actions], LOGGED[actions])
        assert found.value == pytest.approx(rewards.mean())
        assert found.standard_error == pytest.approx(rewards.std(ddof=1) / len(rewards) ** 0.5)


def test_estimates_are_right_on_average_and_as_sure_as_they_say() -> None:
    found = {name: [] for name in ("ips", "snips", "dr")}
    for seed in range(300):
        actions, rewards = log(seed)
        given = rewards, LOGGED[actions], TARGET[actions]
        found["ips"].append(inverse_propensity(*given))
        found["snips"].append(self_normalised(*given))
        found["dr"].append(doubly_robust(*given, *predicted(actions, CLICKED)))
    for estimates in found.values():
        values, errors = np.array(estimates).T
        assert values.mean() == pytest.approx(TRUTH, abs=4 * values.std() / len(values) ** 0.5)
        # The interval of 95 % holds the truth so often.
        assert 0.91 < np.mean(np.abs(values - TRUTH) < 1.96 * errors) < 0.98
    spread = {name: np.std([one.value for one in estimates]) for name, estimates in found.items()}
    assert spread["dr"] < spread["snips"] < spread["ips"]


def test_either_the_propensities_or_the_model_may_be_wrong_for_the_doubly_robust() -> None:
    actions, rewards = log(7, 400_000)
    even, wrong = np.full(len(actions), 0.25), np.full(4, 0.3)
    for propensities, by in ((LOGGED[actions], wrong), (even, CLICKED)):
        found = doubly_robust(rewards, propensities, TARGET[actions], *predicted(actions, by))
        assert found.value == pytest.approx(TRUTH, abs=4 * found.standard_error)
    both = doubly_robust(rewards, even, TARGET[actions], *predicted(actions, wrong))
    assert abs(both.value - TRUTH) > 10 * both.standard_error


def test_what_cannot_be_estimated_is_refused() -> None:
    ones = np.ones(3)
    for bad in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="propensities must be above 0"):
            inverse_propensity(ones, np.array([0.5, bad, 0.5]), ones)
    with pytest.raises(ValueError, match="none of the logged actions"):
        self_normalised(ones, ones, np.zeros(3))
    assert inverse_propensity(np.ones(1), np.ones(1), np.ones(1)).standard_error == float("inf")
