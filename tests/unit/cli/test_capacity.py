"""Capacity: a plan that follows from its coefficients."""

import msgspec
import pytest

from cli.capacity import _MEASURED, Coefficients, plan

pytestmark = pytest.mark.unit
MEASURED = Coefficients(
    events_per_second_a_pair=1000,
    interactions_per_second_learned=10_000,
    us_a_list={"1000": 100, "100000": 300},
    bytes_an_interaction=30,
    state_over_packed=1.2,
    bytes_an_item=6000,
    bytes_an_event=100,
    bytes_a_list=2000,
    bytes_a_delta=1000,
)


def test_a_plan_follows_from_the_coefficients() -> None:
    found = plan(1_000_000, 10_000, 6000, 50, 200_000, MEASURED)
    # At 60 % of 1,000 a second; a list of 10,000 items costs twice one of 1,000.
    assert (found.profile_taskmanagers, found.scorer_taskmanagers) == (10, 20)
    assert found.state == pytest.approx(1_000_000 * 50 * 30 * 1.2)
    assert found.state_a_taskmanager == pytest.approx(found.state / 10)
    assert found.model_a_process == pytest.approx(60e6)
    assert found.learner_load == pytest.approx(0.6)
    assert (found.events_in, found.lists_out, found.deltas) == pytest.approx((600e3, 12e6, 120e6))
    assert found.limits == []


def test_what_is_too_much_is_said() -> None:
    found = plan(100_000_000, 10_000_000, 1_000_000, 50, 8_000_000, MEASURED)
    assert found.learner_load == 100
    said = " ".join(found.limits)
    for word in ("learner", "max_items", "whole model", "Deltas", "max_parallelism"):
        assert word in said


def test_the_measured_coefficients_are_complete() -> None:
    assert msgspec.json.decode(_MEASURED.read_bytes(), type=Coefficients).events_per_second_a_pair > 0
