"""The statistics of experiments: against independent code, known answers, and simulations with a fixed seed."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import ville
from scipy import stats

from model.experiment_statistics import (
    CONCENTRATION,
    Moments,
    _spread,
    boundary,
    compare,
    log_e_value,
    log_evidence_of_mismatch,
)

pytestmark = pytest.mark.unit
Floats = npt.NDArray[np.float64]


def moments(y: Floats, x: Floats | None = None) -> Moments:
    known = np.zeros(len(y)) if x is None else x
    sums = (len(y), y.sum(), (y * y).sum(), known.sum(), (known * known).sum(), (known * y).sum())
    return Moments(*map(float, sums))


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_the_boundary_is_the_normal_mixture_of_another_library(alpha: float) -> None:
    people = np.array([200.0, 3_000.0, 20_000.0, 1_000_000.0])
    theirs = ville.normal_mixture(people, alpha, ville.best_rho(10_000, alpha)) / np.sqrt(people)
    assert [boundary(n, 10_000, alpha) for n in people] == pytest.approx(theirs, rel=1e-5)


def test_the_evidence_is_that_of_another_library() -> None:
    random = np.random.default_rng(7)
    arm = random.random(20_000) < 0.5
    y = (random.random(len(arm)) < np.where(arm, 0.065, 0.05)).astype(np.float64)
    found = compare(moments(y[~arm]), moments(y[arm]), 10_000, 0.05)
    error = (found.high - found.low) / 2 / boundary(len(y), 10_000, 0.05)
    sigma = math.sqrt(len(y)) * error
    theirs = ville.MSPRT(sigma=sigma, tau=sigma * math.sqrt(_spread(10_000, 0.05)))
    expected = theirs.fit(np.full(len(y), found.difference)).log_e_values_[-1]
    assert log_e_value(found.difference, error, len(y), 10_000, 0.05) == pytest.approx(expected, rel=1e-9)
    assert found.p_value == pytest.approx(math.exp(-expected))
    coin = ville.BernoulliTest(0.5, prior=(CONCENTRATION / 2, CONCENTRATION / 2)).fit(arm.astype(np.float64))
    ours = log_evidence_of_mismatch((float(arm.sum()), float((~arm).sum())), (0.5, 0.5))
    assert coin.log_e_values_[-1] == pytest.approx(ours, abs=1e-8)


def test_the_evidence_of_a_mismatch_of_three_arms_is_a_ratio_of_likelihoods() -> None:
    counts, shares = np.array([520, 310, 170]), np.array([0.5, 0.3, 0.2])
    mixed = stats.dirichlet_multinomial(CONCENTRATION * shares, 1000).logpmf(counts)
    expected = mixed - stats.multinomial(1000, shares).logpmf(counts)
    assert log_evidence_of_mismatch(counts.tolist(), shares.tolist()) == pytest.approx(expected, abs=1e-8)


def test_a_zero_is_outside_of_the_interval_where_the_p_value_is_below_alpha() -> None:
    random, seen = np.random.default_rng(3), set()
    for effect in np.linspace(0, 0.2, 40):
        control, arm = random.normal(size=(2, 2000))
        found = compare(moments(control), moments(arm + effect), planned_people=4000, alpha=0.05)
        outside = not found.low <= 0 <= found.high
        assert outside == (found.p_value < 0.05)
        seen.add(outside)
    assert seen == {True, False}


def test_looking_thirty_times_is_no_more_often_wrong_than_promised_and_finds_what_is_there() -> None:
    # In 400 runs; `bench business` makes 2,000.
    random, runs, wrong, right, peeking = np.random.default_rng(5), 400, 0, 0, 0
    for rate in (0.05, 0.065):
        for _ in range(runs):
            sums = random.binomial([334, 334], [0.05, rate], (30, 2)).cumsum(0)
            people = np.arange(1, 31) * 334.0
            looks = [
                compare(Moments(n, *[float(c)] * 2), Moments(n, *[float(t)] * 2), 20_000, 0.05)
                for n, (c, t) in zip(people, sums, strict=True)
            ]
            called = any(not one.low <= 0 <= one.high for one in looks)
            if rate == 0.05:
                wrong += called
                widths = [boundary(2 * n, 20_000, 0.05) for n in people]
                errors = [(one.high - one.low) / 2 / width for one, width in zip(looks, widths, strict=True)]
                peeking += any(abs(one.difference) > 1.96 * error for one, error in zip(looks, errors, strict=True))
            else:
                right += called
    assert wrong / runs <= 0.05 < 0.2 < peeking / runs
    assert right / runs >= 0.75


def test_what_was_known_before_cuts_the_variance_and_changes_no_mean() -> None:
    random = np.random.default_rng(4)
    x = random.normal(10, 3, 8000)
    y, arm = 2 * x + random.normal(0, 3, len(x)), random.random(len(x)) < 0.5
    y = y + 0.5 * arm
    found = compare(moments(y[~arm], x[~arm]), moments(y[arm], x[arm]), 8000, 0.05)
    plain = compare(moments(y[~arm]), moments(y[arm]), 8000, 0.05)
    assert found.variance_cut == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=0.01)
    width = (plain.high - plain.low) * math.sqrt(1 - found.variance_cut)
    assert found.high - found.low == pytest.approx(width, rel=1e-3)
    design = np.stack([np.ones(len(x)), arm, x], 1)
    assert found.difference == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][1], abs=1e-3)


def test_people_can_be_taken_away_and_too_few_say_nothing() -> None:
    sums = Moments()
    for y, x in ((1.0, 2.0), (3.0, 4.0)):
        sums.add(y, x)
    sums.add(3.0, 4.0, -1)
    assert sums == Moments(1, 1, 1, 2, 4, 2)
    assert compare(sums, sums, 100, 0.05)[:4] == (0.0, -math.inf, math.inf, 1.0)
    same = moments(np.ones(200))
    assert compare(same, same, 100, 0.05).p_value == 1
