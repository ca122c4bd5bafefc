"""What another policy would have got, from what a policy with known propensities got.

Sources: Horvitz and Thompson, "A generalization of sampling without replacement", JASA 1952 (inverse propensity
scores); Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS 2015; Dudík,
Langford, Li, "Doubly robust policy evaluation and learning", ICML 2011, equation 2.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """The mean reward, and the standard error of it."""

    value: float
    standard_error: float


def inverse_propensity(rewards: Floats, propensities: Floats, target: Floats) -> Estimate:
    """The mean reward of a policy that would have taken the logged actions with the chances `target` [n] in place of
    `propensities` [n]: unbiased where these are right, and above 0 wherever the target is. Raises ValueError on
    propensities that are not above 0 and up to 1."""
    return _mean(_ratios(propensities, target) * rewards)


def self_normalised(rewards: Floats, propensities: Floats, target: Floats) -> Estimate:
    """The same, divided by the mean ratio of the chances: a small bias for less variance, and never outside of the
    rewards' range. The standard error is that of the delta method. Raises ValueError as `inverse_propensity`, and where
    the target would have taken none of the actions."""
    ratios = _ratios(propensities, target)
    if not ratios.any():
        raise ValueError("the policy would have taken none of the logged actions")
    value = float((ratios * rewards).sum() / ratios.sum())
    around = _mean(ratios * (rewards - value) / ratios.mean())
    return Estimate(value, around.standard_error)


def doubly_robust(
    rewards: Floats, propensities: Floats, target: Floats, predicted: Floats, predicted_value: Floats
) -> Estimate:
    """The same, where a model predicts the rewards: `predicted` [n] of the logged actions, and `predicted_value` [n] of
    the target, its mean over the actions that it would take. Right where either the propensities or the model is, and
    the better the model, the less it varies. The model must not have been fitted to the same events. Raises ValueError
    as `inverse_propensity`."""
    return _mean(predicted_value + _ratios(propensities, target) * (rewards - predicted))


def _ratios(propensities: Floats, target: Floats) -> Floats:
    if not ((propensities > 0) & (propensities <= 1)).all():
        worst = propensities[~((propensities > 0) & (propensities <= 1))][0]
        raise ValueError(f"propensities must be above 0 and up to 1, not {worst}")
    return target / propensities


def _mean(values: Floats) -> Estimate:
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")
    return Estimate(float(values.mean()), error)
