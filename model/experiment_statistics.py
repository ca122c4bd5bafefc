"""What experiments show, from sums alone, and valid however often one looks.

The interval is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, whose boundary is the normal
mixture of Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals
of Statistics 2021; its e-value is the mixture likelihood ratio of Johari, Koomen, Pekelis, Walsh, "Peeking at A/B
tests", KDD 2017. What people did before cuts the variance by CUPED: Deng, Xu, Kohavi, Walker, "Improving the
sensitivity of online controlled experiments by utilizing pre-experiment data", WSDM 2013. Sizes of arms are tested by
Lindon, Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

LEAST_PEOPLE = 100
"""In each arm, before anything is said: the intervals are valid for many."""
CONCENTRATION = 1000.0
"""How sure the test of sizes is beforehand, in people: small differences in size show best."""


class Moments(msgspec.Struct, array_like=True):
    """Sums over an arm's people of an outcome y and of x, what was known before: people may be added and taken away."""

    n: float = 0.0
    y: float = 0.0
    yy: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, y: float, x: float, sign: float = 1.0) -> None:
        """Add one person, or with the sign -1 take one away."""
        self.n += sign
        self.y += sign * y
        self.yy += sign * y * y
        self.x += sign * x
        self.xx += sign * x * x
        self.xy += sign * x * y


class Comparison(NamedTuple):
    """An arm's mean less the control's, the ends of the confidence sequence, its p-value, and by which share what was
    known before has cut the variance."""

    difference: float
    low: float
    high: float
    p_value: float
    variance_cut: float


def compare(control: Moments, arm: Moments, planned_people: float, alpha: float) -> Comparison:
    """The arm against the control; nothing is known where either has fewer than `LEAST_PEOPLE`."""
    if min(control.n, arm.n) < LEAST_PEOPLE:
        return Comparison(0.0, -math.inf, math.inf, 1.0, 0.0)
    one, other = _centred(control), _centred(arm)
    spread = one.xx + other.xx
    theta = (one.xy + other.xy) / spread if spread > 0 else 0.0
    difference = other.mean_y - one.mean_y - theta * (other.mean_x - one.mean_x)
    plain = sum(part.yy / (part.n - 1) / part.n for part in (one, other))
    variance = sum(
        (part.yy - 2 * theta * part.xy + theta**2 * part.xx) / (part.n - 1) / part.n for part in (one, other)
    )
    error, people = math.sqrt(max(variance, 0.0)), control.n + arm.n
    half = error * boundary(people, planned_people, alpha)
    p_value = min(1.0, math.exp(-log_e_value(difference, error, people, planned_people, alpha)))
    cut = 1 - variance / plain if plain > 0 else 0.0
    return Comparison(difference, difference - half, difference + half, p_value, cut)


def boundary(people: float, planned_people: float, alpha: float) -> float:
    """How many standard errors the interval is wide, to each side, with so many people."""
    x = people * _spread(planned_people, alpha)
    return math.sqrt((x + 1) / x * math.log((x + 1) / alpha**2))


def log_e_value(difference: float, error: float, people: float, planned_people: float, alpha: float) -> float:
    """The logarithm of the evidence against there being no difference: above log(1 / alpha) where 0 is outside of the
    interval."""
    if error <= 0:
        return math.inf if difference else 0.0
    x = people * _spread(planned_people, alpha)
    return 0.5 * (difference / error) ** 2 * x / (x + 1) - 0.5 * math.log1p(x)


def log_evidence_of_mismatch(counts: Sequence[float], shares: Sequence[float]) -> float:
    """The logarithm of the evidence that arms of these sizes do not come from these shares; log(1 / alpha) is an alarm
    that is false with the chance alpha, however often one looks."""
    evidence = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + sum(counts))
    for count, share in zip(counts, shares, strict=True):
        prior = CONCENTRATION * share
        evidence += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return evidence


class _Centred(NamedTuple):
    n: float
    mean_y: float
    mean_x: float
    yy: float
    xx: float
    xy: float


def _centred(sums: Moments) -> _Centred:
    mean_y, mean_x = sums.y / sums.n, sums.x / sums.n
    products = sums.yy - sums.y * mean_y, sums.xx - sums.x * mean_x, sums.xy - sums.x * mean_y
    return _Centred(sums.n, mean_y, mean_x, max(products[0], 0.0), max(products[1], 0.0), products[2])


def _spread(planned_people: float, alpha: float) -> float:
    """The mixture's variance for which the boundary is narrowest at so many people."""
    x = -2.0 * math.log(alpha)
    for _ in range(60):
        x = math.log((x + 1) / alpha**2)
    return x / planned_people
