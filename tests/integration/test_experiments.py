"""An experiment on the running jobs: arms in lists, a rule for one of them, and results on their topic."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.integration.test_local_stack import messages
from tests.integration.test_recommend_job import Topics, operator_metrics
from tests.panels import MEASURED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PEOPLE = 300


def test_arms_are_in_lists_and_results_on_their_topic(empty_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    create_topics(empty_stack.bootstrap_servers, default_topics())
    topics = Topics(empty_stack.bootstrap_servers)
    arms = {"a": {"share": 0.5}, "b": {"share": 0.5, "order": "fixed"}}
    experiment = {"experiment_id": "summer", "arms": arms, "control": "a", "planned_people": PEOPLE}
    # Who dislikes more is harmed.
    experiment |= {"guard": {"event_type": "dislike", "outcome": "count"}, "guard_harm": "more"}
    topics.send("experiments", json.dumps(experiment).encode(), key=b"summer")
    overlapping = json.dumps({**experiment, "experiment_id": "second"}).encode()
    topics.send("experiments", overlapping, key=b"second")
    when = "has(person.arms.summer) && person.arms.summer == 'b'"
    rule = {"rule_id": "for b", "action": "filter", "item_ids": ["i0"], "when": when}
    topics.send("rules", json.dumps(rule).encode(), key=b"for b")
    for n in range(30):
        topics.send("items", json.dumps({"item_id": f"i{n}"}).encode(), key=f"i{n}".encode())
    empty_stack.submit(Path("jobs/recommend.py"))
    empty_stack.submit(Path("jobs/experiments.py"))
    people = [f"u{n}" for n in range(PEOPLE)]
    for turn in range(3):
        views = (topics.event(turn * PEOPLE + n, user, f"i{(n + turn) % 30}") for n, user in enumerate(people))
        topics.send("events", *views)
        topics.wait(lambda turn=turn: all(topics.profile_versions().get(user) == turn + 1 for user in people))
    topics.wait(lambda: bool(topics.dead))
    assert topics.dead[0]["error"] == "bad_experiment"
    assert "overlaps summer" in topics.dead[0]["message"]
    newest = {user: listed for user, listed in topics.newest().items() if listed and user in people}
    arm_of = {user: listed["experiments"]["summer"] for user, listed in newest.items()}
    assert all(set(listed["experiments"]) == {"summer"} for listed in newest.values())
    sizes = {arm: sum(one == arm for one in arm_of.values()) for arm in "ab"}
    assert min(sizes.values()) > 100
    for user, listed in newest.items():
        assert arm_of[user] == "a" or "i0" not in [item["item_id"] for item in listed["items"]]
    assert any("i0" in [item["item_id"] for item in listed["items"]] for listed in newest.values())

    # All of b buy, and every tenth of a.
    buyers = [user for n, user in enumerate(people) if arm_of[user] == "b" or n % 10 == 0]
    bought = (topics.event(10_000 + n, user, "i1", "purchase") for n, user in enumerate(buyers))
    topics.send("events", *bought)
    results = last_results(empty_stack.bootstrap_servers, "summer", sum(sizes.values()), len(buyers))
    assert {arm: found["people"] for arm, found in results["arms"].items()} == sizes
    assert results["arms"]["b"]["mean"] == 1.0
    assert 0 < results["arms"]["b"]["low"] < results["arms"]["b"]["difference"]
    assert not results["sample_ratio_mismatch"]
    exposures = messages(empty_stack, "exposures", PEOPLE)
    assert {one["user_id"]: one["arm"] for one in exposures} == arm_of
    assert {one["propensity"] for one in exposures} == {0.5}
    assert MEASURED["experiments"] <= operator_metrics(empty_stack).keys()

    # All of b dislike something: the arm is stopped, and its people get what those of the control get.
    assert results["stopped"] == []
    harmed = [user for user in people if arm_of[user] == "b"]

    topics.send("events", *(topics.event(20_000 + n, user, "i2", "dislike") for n, user in enumerate(harmed)))
    *_, stopped = messages(empty_stack, "experiments", 3)
    assert stopped["stopped"] == ["b"]
    number = 30_000

    def have_what_b_had_not() -> bool:
        nonlocal number
        number += len(harmed)
        topics.send("events", *(topics.event(number + n, user, "i3") for n, user in enumerate(harmed)))
        lists = [topics.newest()[user] or {} for user in harmed]
        return sum("i0" in [item["item_id"] for item in listed["items"]] for listed in lists) > 5

    topics.wait(have_what_b_had_not)
    topics.close()


def last_results(server: str, experiment: str, people: int, bought: int) -> dict[str, Any]:
    """The results once they count so many people, of whom so many bought."""
    consumer = KafkaConsumer("experiment-results", bootstrap_servers=server, auto_offset_reset="earliest")
    end, found = time.time() + 180, {}
    while True:
        assert time.time() < end, found
        for records in consumer.poll(500).values():
            for record in records:
                assert record.key.decode() == experiment
                found = json.loads(record.value)
        arms = found.get("arms", {}).values()
        if sum(arm["people"] for arm in arms) == people and round(sum(a["people"] * a["mean"] for a in arms)) == bought:
            consumer.close()
            return found
