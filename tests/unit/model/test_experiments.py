"""Arms by hashes: as large as asked for, the same for all who ask, and exclusive within a layer."""

import json
from collections import Counter
from typing import Any

import pytest

from model.experiments import Experiments, arm_of
from schema.errors import MessageError
from schema.experiment import Experiment, encode_experiment, parse_experiment

pytestmark = pytest.mark.unit
PEOPLE = [f"u{n}" for n in range(20_000)]


def experiment(name: str = "e", **fields: Any) -> Experiment:
    given = {"experiment_id": name, "arms": {"a": {"share": 0.7}, "b": {"share": 0.3}}, "control": "a", **fields}
    found = parse_experiment(name, json.dumps(given).encode())[1]
    assert found is not None
    return found


def test_arms_are_as_large_as_asked_for_and_independent_of_another_experiment_s() -> None:
    one, other = experiment("one"), experiment("other")
    pairs = Counter((arm_of(one, user), arm_of(other, user)) for user in PEOPLE)
    for pair, expected in {("a", "a"): 0.49, ("a", "b"): 0.21, ("b", "a"): 0.21, ("b", "b"): 0.09}.items():
        assert pairs[pair] / len(PEOPLE) == pytest.approx(expected, abs=0.01)


def test_experiments_of_one_layer_have_nobody_in_common() -> None:
    first, second = experiment("first", end=0.4), experiment("second", begin=0.4, end=0.9)
    members = Counter((arm_of(first, user) is None, arm_of(second, user) is None) for user in PEOPLE)
    assert members[False, False] == 0
    assert members[False, True] / len(PEOPLE) == pytest.approx(0.4, abs=0.01)
    assert members[True, True] / len(PEOPLE) == pytest.approx(0.1, abs=0.01)


def test_one_that_overlaps_another_of_its_layer_is_refused_and_what_was_stays() -> None:
    running = Experiments()
    running.put("first", experiment("first", end=0.5))
    with pytest.raises(MessageError, match="overlaps first"):
        running.put("second", experiment("second", begin=0.4))
    running.put("second", experiment("second", begin=0.5))
    running.put("third", experiment("third", layer="other"))
    with pytest.raises(MessageError, match="overlaps second"):
        running.put("first", experiment("first", end=0.6))
    assert running.running["first"].end == 0.5
    running.put("second", None)
    running.put("first", experiment("first"))
    assert set(running.running) == {"first", "third"}


def test_people_of_a_stopped_arm_get_what_the_control_gets() -> None:
    running = Experiments()
    running.put("e", experiment(arms={"a": {"share": 0.5}, "b": {"share": 0.5, "order": "fixed"}}, stopped=["b"]))
    arms = {user: running.arms_of(user) for user in PEOPLE[:50]}
    assert {"a", "b"} == {one["e"] for one in arms.values()}
    for one in arms.values():
        assert running.effective(one) == {"e": "a"}
        assert [arm.order for arm in running.settings_of(running.effective(one))] == ["learned"]


def test_an_experiment_comes_back_as_it_was_encoded() -> None:
    one = experiment(metric={"outcome": "spend", "cap": 10}, guard={"event_type": "dislike"}, stopped=["b"])
    assert parse_experiment("e", encode_experiment(one)) == ("e", one)
    assert parse_experiment("e", None) == ("e", None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"control": "c", "begin": 0.5, "end": 0.4}, ["control names no arm: c", "begin must be below end"]),
        ({"arms": {"a": {"share": 0.7}, "b": {"share": 0.7}}}, ["add up to 1"]),
        ({"arms": {"a": {"share": 1.0}}, "alpha": 2.0}, ["arms", "alpha"]),
        ({"arms": {"a": {"share": 0.5, "colour": "red"}, "b": {"share": 0.5}}}, ["arms.a.colour"]),
        ({"experiment_id": "not a name"}, ["experiment_id"]),
    ],
)
def test_a_faulty_experiment_is_refused_with_its_faults(fields: dict[str, Any], said: list[str]) -> None:
    given = {"experiment_id": "e", "arms": {"a": {"share": 0.7}, "b": {"share": 0.3}}, "control": "a", **fields}
    with pytest.raises(MessageError) as refused:
        parse_experiment(None, json.dumps(given).encode())
    assert [word for word in said if word not in refused.value.reason] == []
    for payload in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(MessageError):
            parse_experiment(None, payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 1e-170),
        ("planned_people", 10**400),
        ("begin", "nan"),
        ("metric", {"outcome": "spend", "cap": "inf"}),
        ("layer", json.loads("[" * 500 + "]" * 500)),
    ],
)
def test_what_no_statistics_can_bear_is_refused(field: str, value: object) -> None:
    with pytest.raises(MessageError, match=field):
        experiment(**{field: value})


def test_a_message_of_a_thousand_levels_is_refused() -> None:
    deep = '{"experiment_id":"e","arms":{},"control":"a","layer":' + "[" * 994 + "]" * 994 + "}"
    with pytest.raises(MessageError, match="layer"):
        parse_experiment("e", deep.encode())
