"""Who counts in which arm when definitions change, and what is left of who is erased."""

import json
from typing import Any

import pytest
from pyflink.common import Row

from model.experiments import arm_of
from model.outcomes import Tally, pack, unpack_tally
from operators.experiment_results import EXPOSURES, ExperimentResultsFunction
from operators.outcomes import OutcomesFunction
from schema.event import Event, EventParser, encode_event
from schema.experiment import Experiment, Exposure, decode_exposure, parse_experiment
from schema.recommendation import Recommendation, encode_recommendation
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit


class Jobs:
    """Outcomes of people, and what their experiment counts."""

    def __init__(self) -> None:
        self.people, self.counted = Keyed(), Keyed()
        self._outcomes, self._results = OutcomesFunction(EventParser, 30.0), ExperimentResultsFunction()
        self._outcomes.open(self.people)
        self._results.open(self.counted)
        self._number, self.exposures = 0, list[Exposure]()

    def define(self, **fields: Any) -> None:
        arms = {"a": {"share": 0.5}, "b": {"share": 0.5}}
        self.definition = json.dumps({"experiment_id": "e", "arms": arms, "control": "a", **fields}).encode()
        self.counted.key = "e"
        list(self._results.process_element2(Row("e", self.definition), self.counted))

    def experiment(self) -> Experiment:
        found = parse_experiment("e", self.definition)[1]
        assert found is not None
        return found

    def listed(self, user: str, arms: dict[str, str] | None, version: int = 1) -> None:
        made = Recommendation(user, "l", self._number, "e", 1, 1, "personal", [], version, experiments=arms)
        self._told(user, True, encode_recommendation(made))

    def erased_list(self, user: str) -> None:
        self._told(user, True, None)

    def did(self, user: str, kind: str) -> None:
        item = None if kind == "erase_user" else "i"
        self._told(user, False, encode_event(Event(f"e{self._number}", user, kind, 1_600_000_000_000, item)))

    def _told(self, user: str, of_list: bool, payload: bytes | None) -> None:
        self._number += 1
        self.people.key, self.counted.key = user, "e"
        for _, (change,) in self._outcomes.process_element(Row("", of_list, payload, self._number), self.people):
            for tag, row in self._results.process_element1(Row(bytes(change)), self.counted):
                assert tag is EXPOSURES
                self.exposures.append(decode_exposure(row[1]))

    def arms(self) -> dict[str, tuple[float, float]]:
        tally = unpack_tally(self.counted.states["tally"]["e"])
        return {name: (sums.n, sums.y) for name, sums in tally.arms.items()}

    def members(self) -> set[str]:
        return set(self.counted.states["members"].get("e", {}))


def test_who_moves_to_another_arm_counts_there_alone() -> None:
    jobs = Jobs()
    jobs.define()
    moved = {"a": {"share": 0.9}, "b": {"share": 0.1}}
    later = parse_experiment("e", json.dumps({"experiment_id": "e", "arms": moved, "control": "a"}).encode())[1]
    before = jobs.experiment()
    assert later is not None
    user = next(u for u in (f"u{n}" for n in range(99)) if (arm_of(before, u), arm_of(later, u)) == ("b", "a"))
    jobs.listed(user, {"e": "b"})
    assert jobs.arms() == {"b": (1, 0)}
    jobs.define(arms=moved)
    jobs.did(user, "view")
    assert jobs.arms() == {}
    jobs.listed(user, {"e": "a"})
    jobs.did(user, "purchase")
    assert jobs.arms() == {"a": (1, 1)}
    assert [(one.user_id, one.arm, one.propensity) for one in jobs.exposures] == [(user, "b", 0.5), (user, "a", 0.9)]


def test_a_list_of_a_session_without_consent_changes_nothing() -> None:
    jobs = Jobs()
    jobs.define()
    arm = arm_of(jobs.experiment(), "u") or ""
    jobs.listed("u", {"e": arm})
    jobs.listed("u", None, version=0)
    jobs.did("u", "purchase")
    assert jobs.arms() == {arm: (1, 1)}


@pytest.mark.parametrize("first", ["list", "event"])
def test_who_is_erased_is_forgotten_whatever_is_heard_of_first(first: str) -> None:
    jobs = Jobs()
    jobs.define()
    jobs.listed("u", {"e": arm_of(jobs.experiment(), "u") or ""})
    # They are in it no more, as another one has taken its place.
    jobs.listed("u", {"f": "x"})
    assert jobs.members() == {"u"}
    if first == "list":
        jobs.erased_list("u")
    jobs.did("u", "erase_user")
    assert jobs.members() == set()
    assert not jobs.people.states["outcomes"]


def test_an_arm_that_is_stopped_no_more_is_counted_anew() -> None:
    jobs = Jobs()
    jobs.define()
    jobs.listed("u", {"e": arm_of(jobs.experiment(), "u") or ""})
    jobs.define(stopped=["b"])
    assert sum(n for n, _ in jobs.arms().values()) == 1
    jobs.define()
    assert jobs.arms() == {}
    assert jobs.members() == set()


def test_arms_in_another_order_are_counted_anew() -> None:
    jobs = Jobs()
    jobs.define()
    jobs.listed("u", {"e": arm_of(jobs.experiment(), "u") or ""})
    jobs.define(arms={"b": {"share": 0.5}, "a": {"share": 0.5}})
    assert jobs.arms() == {}


def test_one_that_was_taken_by_other_rules_rests() -> None:
    jobs = Jobs()
    jobs.define()
    old = Tally(jobs.definition.replace(b'"control"', b'"alpha":1e-20,"control"'))
    jobs.counted.states["tally"]["e"] = pack(old)
    jobs.listed("u", {"e": "a"})
    jobs.counted.timers.add(("e", 1))
    jobs.counted.fired(jobs._results, 1)
    jobs.define()
    jobs.listed("v", {"e": arm_of(jobs.experiment(), "v") or ""})
    assert jobs.members() == {"v"}
