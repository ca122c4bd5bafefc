"""Events of several users in one element: each goes to its own profile."""

import json
from typing import Any

import pytest
from pyflink.common import Row

from model.profile import ProfileOptions, unpack_profile
from model.snapshot import unpack_snapshot
from operators.profile import EVENT, SEGMENT, UNKEYED, ProfileFunction
from schema.event import EventParser
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit
DAY = 1_600_000_000_000
Message = tuple[str, str, bytes | None]


class Counting(Keyed):
    """Adds up what is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def counter(self, name: str) -> Any:
        self.counts.setdefault(name, 0)
        flink = self

        class Counter:
            def inc(self, by: int = 1) -> None:
                flink.counts[name] += by

        return Counter()


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> Counting:
    flink = Counting()

    class User:
        def __init__(self, _: object) -> None:
            pass

        def set(self, user_id: str) -> None:
            flink.key = user_id

    monkeypatch.setattr("operators.profile.CurrentUser", User)
    monkeypatch.setattr("operators.profile.subtask", lambda _: 1)
    return flink


def opened(flink: Counting) -> ProfileFunction:
    function = ProfileFunction(ProfileOptions(), EventParser, "events", [5, 9], 30.0, 1, None)
    function.open(flink)  # type: ignore[arg-type]
    return function


def view(user: str, number: int, item: str) -> Message:
    event = {
        "event_id": f"e{number}",
        "user_id": user,
        "event_type": "view",
        "timestamp": DAY + number,
        "item_id": item,
    }
    return user, EVENT, json.dumps(event).encode()


def take(function: ProfileFunction, flink: Counting, *messages: Message, offset: int = 0) -> list[Any]:
    users, kinds, payloads = zip(*messages, strict=True)
    count = len(messages)
    batch = Row(users, kinds, payloads, [0] * count, list(range(offset, offset + count)), [DAY] * count)
    return list(function.process_element(batch, flink))  # type: ignore[arg-type]


def test_each_event_of_a_batch_goes_to_the_profile_of_its_user_and_all_snapshots_out_together(flink: Counting) -> None:
    function = opened(flink)
    (made,) = take(function, flink, view("u", 1, "a"), view("v", 2, "b"), view("u", 3, "c"), view("u", 3, "c"))
    shard, (again, requests) = made
    # That of the second subtask.
    assert (shard, again) == (9, 9)
    told = [unpack_snapshot(request) for request in requests]
    assert [(one.user_id, one.history, one.offset) for one in told] == [
        ("u", ["a"], 0),
        ("v", ["b"], 1),
        ("u", ["c", "a"], 2),
    ]
    kept = flink.states["profile"]
    assert {user: unpack_profile(packed).items for user, packed in kept.items()} == {"u": ["a", "c"], "v": ["b"]}
    assert (flink.counts["events_accepted"], flink.counts["events_duplicate"]) == (3, 1)


def test_one_batch_after_another_is_the_same_as_one(flink: Counting) -> None:
    events = [view(f"u{n % 3}", n, f"i{n % 4}") for n in range(12)]
    together = take(opened(flink), flink, *events)[0][1][1]
    flink.states.clear()
    function = opened(flink)
    apart = [take(function, flink, event, offset=n)[0][1][1] for n, event in enumerate(events)]
    assert together == [request for (request,) in apart]


def test_what_is_malformed_hinders_nothing_else_of_the_batch(flink: Counting) -> None:
    function = opened(flink)
    valid = view("u", 1, "a")
    *letters, made = take(function, flink, ("", UNKEYED, b"{"), valid, ("v", EVENT, None), ("", UNKEYED, valid[2]))
    assert [json.loads(bytes(row[0]))["error"] for _, row in letters] == ["not_json", "empty", "unkeyed"]
    assert [unpack_snapshot(request).user_id for request in made[1][1]] == ["u"]
    assert list(flink.states["profile"]) == ["u"]


def test_a_segment_shows_on_the_next_snapshot_of_its_user(flink: Counting) -> None:
    function = opened(flink)
    told = json.dumps({"user_id": "u", "segment": "loyal", "price_sensitive": True, "since": DAY}).encode()
    (made,) = take(function, flink, view("u", 1, "a"), ("u", SEGMENT, told), view("v", 2, "a"), view("u", 3, "b"))
    assert [unpack_snapshot(request).behaviour for request in made[1][1]] == ["", "", "loyal"]
