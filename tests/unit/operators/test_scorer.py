"""The scorer's memory: who waits for a list, what it has sent, which place of a list led to an event, and which were
seen."""

from collections import OrderedDict
from itertools import chain

import msgspec
import pytest

from model.blend import BlendOptions
from model.learned_blend import LearnedBlend
from model.snapshot import Snapshot, pack_snapshot, unpack_snapshot
from operators.scorer import ScorerFunction

pytestmark = pytest.mark.unit


class Kept:
    """What a list state was told to hold."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def get(self) -> list[bytes]:
        return self.entries

    def add(self, entry: bytes) -> None:
        self.entries.append(entry)

    def update(self, entries: list[bytes]) -> None:
        self.entries = list(entries)

    def clear(self) -> None:
        self.entries = []

    def events(self) -> list[str]:
        packed = chain.from_iterable(msgspec.msgpack.decode(entry, type=list[bytes]) for entry in self.entries)
        return [unpack_snapshot(one).event_id for one in packed]


def clicked(user: str, event: str, erased: bool = False) -> Snapshot:
    return Snapshot(user, event, 0, 0, ["a"], [1.0], erased=erased)


def take(scorer: ScorerFunction, *snapshots: Snapshot) -> list[object]:
    """Let them wait, and keep who waits, as the operator does."""
    came = list(scorer._received(0, list(snapshots)))
    kept = [pack_snapshot(one) for one in snapshots if scorer._queue(0).get(one.user_id) is one]
    scorer._keep(0, kept, anew=any(one.erased for one in snapshots))
    return came


def scorer_of(send_unchanged: bool = False, remembered: int = 10) -> ScorerFunction:
    scorer = ScorerFunction(BlendOptions(), "events", 3, send_unchanged, remembered, 0)
    scorer._sent, scorer._segments, scorer._run, scorer._lists_made = OrderedDict(), OrderedDict(), "run", 0
    scorer._replica, scorer._blends = None, {0: LearnedBlend(BlendOptions().learned)}
    scorer._waiting, scorer._queues, scorer._kept = Kept(), {}, {}
    return scorer


def seen(item: str, list_id: str | None, user: str = "u") -> Snapshot:
    return Snapshot(user, "e", 0, 0, [], [], item_id=item, list_id=list_id, impression=True)


def test_an_impression_counts_once_for_each_place_of_the_list_that_the_person_has() -> None:
    scorer, blend = scorer_of(), LearnedBlend(BlendOptions().learned)
    first = scorer._changed("u", ["a", "b", "c"])
    assert first is not None
    for item, list_id in (("b", first), ("b", first), ("a", first), ("x", first), ("a", "another"), ("c", None)):
        scorer._see(seen(item, list_id), blend)
    assert (blend.exposure.lists, blend.exposure.seen[:3].tolist()) == (1, [1, 1, 0])
    second = scorer._changed("u", ["c", "a", "b"])
    scorer._see(seen("a", first), blend)
    scorer._see(seen("c", second), blend)
    scorer._see(seen("c", second, "somebody"), blend)
    assert (blend.exposure.lists, blend.exposure.seen[:3].tolist()) == (2, [2, 1, 0])
    assert scorer._place(seen("b", second)) == 2


def test_a_list_is_new_where_it_has_changed_and_keeps_its_id_where_not() -> None:
    scorer = scorer_of(remembered=1)
    first = scorer._changed("u", ["a"])
    assert first
    assert scorer._changed("u", ["a"]) is None
    assert scorer._place(seen("a", first)) == 0
    # An empty list is sent where it takes another's place, and once.
    assert scorer._changed("u", []) not in (None, first)
    assert scorer._changed("u", []) is None
    assert scorer._changed("nobody", []) is None
    first = scorer._changed("u", ["a"])
    second = scorer._changed("u", ["b"])
    assert second not in (None, first)
    # Whose list was sent longest ago is forgotten first.
    scorer._changed("other", ["a"])
    assert scorer._place(seen("b", second)) == -1
    always = scorer_of(send_unchanged=True)
    assert always._changed("u", ["a"]) != always._changed("u", ["a"]) is not None


def test_a_segment_is_told_when_it_changes() -> None:
    scorer = scorer_of(remembered=2)
    told = [scorer._segment_changed(*said) for said in (("u", 0), ("u", 0), ("u", 1), ("v", 1), ("w", 0), ("u", 1))]
    # Of three people the one told of longest ago is forgotten.
    assert told == [True, False, True, True, True, True]


def test_people_wait_once_each_for_what_is_newest_of_them_and_a_restart_knows_them() -> None:
    scorer = scorer_of()
    take(scorer, clicked("u", "1"), clicked("v", "2"))
    take(scorer, clicked("u", "3"), clicked("w", "4"))
    assert [one.event_id for one in scorer._queue(0).values()] == ["3", "2", "4"]
    restarted = scorer_of()
    restarted._waiting = scorer._waiting
    assert [one.event_id for one in restarted._queue(0).values()] == ["3", "2", "4"]
    # Who has been served is forgotten with the last of them.
    restarted._queue(0).popitem(last=False)
    restarted._keep(0, [], anew=False)
    assert restarted._waiting.events() == ["1", "2", "3", "4"]
    restarted._queue(0).clear()
    restarted._keep(0, [], anew=False)
    assert not restarted._waiting.entries


def test_what_waits_holds_nothing_of_who_is_erased() -> None:
    scorer = scorer_of()
    take(scorer, clicked("u", "1"), clicked("v", "2"))
    rows = take(scorer, clicked("w", "3"), clicked("u", "4", erased=True))
    assert [row[0] for row in rows if not isinstance(row, tuple)] == ["u"]
    assert sorted(scorer._waiting.events()) == ["2", "3"]


def test_what_waits_is_written_anew_where_most_of_it_has_been_served() -> None:
    scorer = scorer_of()
    for n in range(300):
        take(scorer, clicked("u", str(n)), clicked("v", f"{n}v"))
    # Two people wait: the state holds a bounded number of their events, and the newest of each last.
    assert len(scorer._waiting.events()) <= 2 * 2 + 128
    assert scorer._waiting.events()[-2:] == ["299", "299v"]
