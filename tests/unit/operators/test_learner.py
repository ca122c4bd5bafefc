"""The learner: what it cannot learn from is set aside, what is off lists is told once, and nothing it keeps grows
without end."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from pyflink.common import Row

import operators.learner
from model.blend import BlendOptions, Recommender
from model.delta import CatalogueChange, Steering
from model.snapshot import Snapshot, pack_snapshot
from operators.category_items import CATEGORY_ITEMS
from operators.dead_letters import DEAD_LETTERS
from operators.forbidden_items import FORBIDDEN_ITEMS
from operators.learner import TOPIC_STEP, LearnerFunction
from operators.receipts import RECEIPTS
from operators.review import REVIEW_QUEUE
from schema.category_items import decode_category_items
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit
TABLES = ("items", "rules", "review-decisions", "experiments")


class Picky(Recommender):
    """Fails on the item `poison` and on the rule `poison`."""

    def _follow_catalogue(self, catalogue: Sequence[CatalogueChange]) -> None:
        if any(change.item_id == "poison" for change in catalogue):
            raise ZeroDivisionError
        super()._follow_catalogue(catalogue)

    def _steer(self, steering: Sequence[Steering]) -> None:
        if any(steered.key == "poison" for steered in steering):
            raise ZeroDivisionError
        super()._steer(steering)


class PickyLearner(LearnerFunction):
    recommender = Picky


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> Keyed:
    """Without anything of a job before, which only a JVM could hold."""
    monkeypatch.setattr(operators.learner, "former_value", lambda *_: None)
    return Keyed()


def opened(flink: Keyed) -> PickyLearner:
    learner = PickyLearner(BlendOptions(), [0], "events", TABLES, 100, 20, None, 0, 1.0)
    learner.open(flink)  # type: ignore[arg-type]
    return learner


def told(rows: Iterator[object], tag: object) -> list[Row]:
    return [row[1] for row in rows if isinstance(row, tuple) and row[0] is tag]


def sent(learner: LearnerFunction, *messages: tuple[int, str, Any]) -> Iterator[object]:
    """A micro-batch of messages of the catalogue, and one of what the shop steers by: the number of each one's table,
    its key, and what it says."""
    sizes = Counter(table > 0 for table, _, _ in messages)
    for offset, (table, key, said) in enumerate(messages):
        payload = None if said is None else json.dumps(said).encode()
        row = Row(key, payload, 3 + table * TOPIC_STEP, offset, sizes[table > 0])
        yield from learner.process_element2(row, None)  # type: ignore[arg-type]


def test_of_a_batch_that_fails_only_the_messages_at_fault_are_set_aside(flink: Keyed) -> None:
    learner = opened(flink)
    rule = {"rule_id": "poison", "action": "filter", "item_ids": ["b"]}
    batch = [(0, "a", {"item_id": "a"}), (0, "poison", {"item_id": "poison"}), (1, "poison", rule)]
    rows = list(sent(learner, *batch, (1, "none", {**rule, "rule_id": "none"}), (0, "b", {"item_id": "b"})))
    letters = sorted((json.loads(row[0]) for row in told(iter(rows), DEAD_LETTERS)), key=lambda one: one["offset"])
    assert [(letter["error"], letter["topic"], letter["partition"], letter["offset"]) for letter in letters] == [
        ("learner_failed", "items", 3, 1),
        ("learner_failed", "rules", 3, 2),
    ]
    assert "ZeroDivisionError" in letters[0]["message"]
    assert json.loads(letters[1]["payload"]) == rule
    recommender = learner._recommender
    assert recommender is not None
    assert (recommender.index.ids, list(recommender.rules.rules)) == (["a", "b"], ["none"])
    assert [row[0] for row in told(iter(rows), FORBIDDEN_ITEMS)] == ["b"]


def test_what_is_popular_in_a_category_is_told_at_every_depth_and_not_too_often(
    flink: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = opened(flink)
    paths = {"a": ["home", "rugs"], "b": ["home", "rugs"], "c": ["home", "lamps"], "d": ["toys"]}
    list(sent(learner, *((0, item, {"item_id": item, "category": path}) for item, path in paths.items())))

    def told_after(*items: str) -> dict[str, list[tuple[str, float]]]:
        taken = [Snapshot(f"u{n}", f"{n}", 0, 0, [item], [1.0], 0, item) for n, item in enumerate(items)]
        rows = learner.process_element1(Row(0, [pack_snapshot(one) for one in taken]), None)  # type: ignore[arg-type]
        found = {row[0]: decode_category_items(row[1]) for row in told(rows, CATEGORY_ITEMS)}
        return {name: [(one.item_id, one.score) for one in said.items] for name, said in found.items()}

    assert told_after("a", "b", "b", "c") == {
        "home": [("b", 1.0), ("a", 0.5), ("c", 0.5)],
        "rugs": [("b", 1.0), ("a", 0.5)],
        "lamps": [("c", 1.0)],
    }
    assert told_after("c", "d") == {"toys": [("d", 1.0)]}
    monkeypatch.setattr(operators.learner, "_POPULAR_S", 0.0)
    list(sent(learner, (0, "b", {"item_id": "b", "category": ["home", "rugs"], "available": False})))
    learner._popular_due.clear()
    assert told_after("d") == {"home": [("c", 1.0), ("a", 0.5)], "lamps": [("c", 1.0)], "toys": [("d", 1.0)]}
    assert told_after("a", "a") == {"home": [("a", 1.0), ("c", 0.66667)], "rugs": [("a", 1.0)]}


def test_events_without_consent_leave_nothing(flink: Keyed) -> None:
    learner = opened(flink)
    alone = Snapshot("anna", "e", 0, 0, ["a"], [1.0], session_only=True)
    list(learner.process_element1(Row(0, [pack_snapshot(alone)]), None))  # type: ignore[arg-type]
    assert not flink.states["log"].get("")


def test_of_people_erased_one_after_another_the_log_is_folded_seldom_and_never_forgotten(
    flink: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators.learner, "_FOLD_PAUSE", 1e6)

    def erased_with(learner: LearnerFunction, *users: str) -> list[str]:
        """The receipts that come at once when these take something and are erased."""
        rows = []
        for user in users:
            taken = Snapshot(user, f"{user} takes", 0, 0, ["a"], [1.0], 0, "a")
            erasure = Snapshot(user, f"{user} goes", 0, 0, [], [], erased=True)
            batch = Row(0, [pack_snapshot(taken), pack_snapshot(erasure)])
            rows += learner.process_element1(batch, flink)  # type: ignore[arg-type]
        return receipts(rows)

    def receipts(rows: list[object]) -> list[str]:
        return [json.loads(row[0])["event_id"] for row in told(iter(rows), RECEIPTS)]

    def held() -> bytes:
        return flink.states["base"][""] + msgspec.msgpack.encode(flink.states["log"].get("", {}))

    learner = opened(flink)
    assert erased_with(learner, "anna") == ["anna goes"]
    assert erased_with(learner, "ben", "cleo") == []
    assert b"anna" not in held()
    assert b"ben" in held()
    # Nothing more comes.
    assert receipts(flink.fired(learner, 10**18)) == ["ben goes", "cleo goes"]
    assert b"ben" not in held()

    assert erased_with(learner, "dora") == []
    assert b"dora" in held()
    # The job was away meanwhile.
    assert receipts(list(sent(opened(flink), (0, "b", {"item_id": "b"})))) == ["dora goes"]
    assert b"dora" not in held()


def test_a_long_log_waits_too_where_it_has_just_been_folded(flink: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(learner: LearnerFunction, begin: int, end: int) -> list[int]:
        """How long the log is after each of the events."""
        lengths = []
        for n in range(begin, end):
            taken = pack_snapshot(Snapshot("u", f"{n}", 0, 0, ["a"], [1.0], 0, "a"))
            list(learner.process_element1(Row(0, [taken]), flink))  # type: ignore[arg-type]
            lengths.append(len(flink.states["log"].get("", {})))
        return lengths

    # Folded after a hundred.
    monkeypatch.setattr(operators.learner, "_FOLD_PAUSE", 0.0)
    learner = opened(flink)
    assert batches(learner, 0, 250)[98:101] == [99, 0, 1]
    monkeypatch.setattr(operators.learner, "_FOLD_PAUSE", 1e6)
    learner = opened(flink)
    assert batches(learner, 250, 500)[48:51] == [99, 0, 1]
    assert len(flink.states["log"][""]) == 200


def test_what_came_to_an_end_while_the_job_was_away_is_told(flink: Keyed) -> None:
    items = [(0, name, {"item_id": name, "title": name.upper()}) for name in "abc"]
    rules = [
        (1, "never", {"rule_id": "never", "action": "filter", "item_ids": ["a"]}),
        (1, "look", {"rule_id": "look", "action": "review", "item_ids": ["b"]}),
    ]
    rows = list(sent(opened(flink), *items, *rules))
    assert [row[0] for row in told(iter(rows), REVIEW_QUEUE)] == ["b"]
    assert [row[0] for row in told(iter(rows), FORBIDDEN_ITEMS)] == ["a", "b"]

    # A rule may end by its date, so what the state says now is not what was told.
    log = flink.states["log"][""]
    log[99] = msgspec.msgpack.encode([[], [], [Steering("rule", name, None) for name in ("never", "look")]])
    rows = list(sent(opened(flink), (0, "d", {"item_id": "d"})))
    assert told(iter(rows), REVIEW_QUEUE) == [Row("b", None)]
    assert told(iter(rows), FORBIDDEN_ITEMS) == [Row("a", None), Row("b", None)]
    rows = list(sent(opened(flink), (0, "e", {"item_id": "e"})))
    assert told(iter(rows), REVIEW_QUEUE) + told(iter(rows), FORBIDDEN_ITEMS) == []
