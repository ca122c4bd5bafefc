"""The network is trained while lists are in time, and for its share of the time."""

import pytest

from operators import training_budget
from operators.training_budget import TrainingBudget

pytestmark = pytest.mark.unit


def test_nothing_is_trained_while_events_come_late() -> None:
    budget = TrainingBudget(500, 0.25)
    assert budget.allows(1000, 1500)
    assert not budget.allows(1000, 1501)
    assert TrainingBudget(0, 0.25).allows(0, 10**12)


def test_training_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(training_budget.time, "monotonic", lambda: clock[0])
    budget, trained = TrainingBudget(500, 0.25), 0.0
    for _ in range(1000):
        clock[0] += 0.02
        if budget.allows(0, 0):
            clock[0] += 0.1
            trained += 0.1
            budget.spent(0.1)
    assert 0.2 < trained / (clock[0] - 100) < 0.26
