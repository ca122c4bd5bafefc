"""The scorer's memory: who waits for a list, what it has sent, which place of a list led to an event, and which were
seen."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

import msgspec
import pytest
from pyflink.common import Row

from model.blend import BlendOptions, Recommender
from model.context_popularity import ContextPopularityOptions
from model.delta import CatalogueChange
from model.learned_blend import LearnedBlend
from model.snapshot import Snapshot, pack_snapshot, unpack_snapshot
from operators.scorer import ScorerFunction
from schema.recommendation import DEFAULT_USER, decode_recommendation
from tests.unit.operators.keyed import Keyed

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


class Flink(Keyed):
    """With the list state of who waits, and when the operator is to be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.waiting, self.due = 0, Kept(), list[int]()

    def get_list_state(self, _: object) -> Kept:
        return self.waiting

    def register_processing_time_timer(self, at: int) -> None:
        self.due.append(at)


def opened(flink: Flink, model: bool = True, target_ms: int = 0) -> ScorerFunction:
    """A scorer that has started, with a model of three items or without; without a target nothing is late."""
    scorer = ScorerFunction(BlendOptions(), "events", 3, False, 10, target_ms)
    scorer.open(flink)
    if model:
        give_model(scorer, flink)
    return scorer


def give_model(scorer: ScorerFunction, flink: Flink) -> None:
    recommender = Recommender(BlendOptions())
    recommender.learn([], [CatalogueChange(item, True) for item in "abc"])
    list(scorer.process_element2(Row(True, 0, recommender.pack(learning=False)), flink))


def take(scorer: ScorerFunction, flink: Flink, *snapshots: Snapshot) -> list[tuple[str, str | None]]:
    """One micro-batch: whose lists came of it, for which event, None where a list is taken back."""
    requests = [pack_snapshot(snapshot) for snapshot in snapshots]
    return rows_of(scorer.process_element1(Row(0, requests), flink))


def wake(scorer: ScorerFunction, flink: Flink) -> list[tuple[str, str | None]]:
    return rows_of(scorer.on_timer(flink.due.pop(0), flink))


def rows_of(made: Iterator[object]) -> list[tuple[str, str | None]]:
    rows = [one for row in made if isinstance(row, Row) for one in row[0].items()]
    told = [(user, payload and msgspec.json.decode(payload)["event_id"]) for user, payload in rows]
    return [row for row in told if row[0] != DEFAULT_USER]


def scorer_of(send_unchanged: bool = False, remembered: int = 10) -> ScorerFunction:
    scorer = ScorerFunction(BlendOptions(), "events", 3, send_unchanged, remembered, 0)
    scorer._sent, scorer._segments, scorer._run, scorer._lists_made = OrderedDict(), OrderedDict(), "run", 0
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
    # The arms of experiments are told, also where they change nothing.
    first = scorer._changed("u", ["a"], {"summer": "control"})
    assert first
    assert scorer._changed("u", ["a"], {"summer": "control"}) is None
    assert scorer._changed("u", ["a"], None) not in (None, first)
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


def test_a_network_that_would_make_lists_late_is_left_out_for_a_while() -> None:
    scorer = scorer_of()
    scorer._target_freshness_ms, scorer._replica = 500, Recommender(BlendOptions())
    now = int(time.time() * 1000)
    assert not scorer._too_slow(now, 100)
    assert scorer._too_slow(now - 600, 100)
    # What a call costs by itself says nothing of a large batch.
    for _ in range(60):
        scorer._replica.sequence.reading_time.observe(2, 240.0)
    assert not scorer._too_slow(int(time.time() * 1000), 2)
    assert not scorer._too_slow(int(time.time() * 1000), 100)
    for _ in range(60):
        scorer._replica.sequence.reading_time.observe(100, 300.0)
    assert not scorer._too_slow(int(time.time() * 1000), 80)
    left_out = 0
    while scorer._too_slow(int(time.time() * 1000), 100):
        left_out += 1
    assert 5 < left_out < 20
    # Without a target nothing is late.
    scorer._target_freshness_ms = 0
    assert not scorer._too_slow(0, 10_000)


def test_a_segment_is_told_when_it_changes() -> None:
    scorer = scorer_of(remembered=2)
    told = [scorer._segment_changed(*said) for said in (("u", 0), ("u", 0), ("u", 1), ("v", 1), ("w", 0), ("u", 1))]
    # Of three people the one told of longest ago is forgotten.
    assert told == [True, False, True, True, True, True]


def test_a_batch_is_served_at_once_each_person_with_what_is_newest_of_them() -> None:
    flink = Flink()
    scorer = opened(flink)
    assert take(scorer, flink, clicked("u", "1"), clicked("v", "2"), clicked("u", "3")) == [("u", "3"), ("v", "2")]
    assert (flink.due, flink.waiting.entries) == ([], [])


def test_people_without_history_have_a_list_by_context_each_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(country: str, user: str, item: str) -> Snapshot:
        said: dict[str, str | bool | float] = {"country": country, "page": "home"}
        return Snapshot(user, "e", 1_600_000_000_000, 0, [item], [1.0], 0, item, profile_version=1, properties=said)

    def lists(*people: Snapshot) -> dict[str, list[str]]:
        """Those for people without history, once these people have come."""
        requests = [pack_snapshot(one) for one in people]
        rows = [row[0] for row in scorer.process_element1(Row(0, requests), flink) if isinstance(row, Row)]
        lists = {user: decode_recommendation(payload) for row in rows for user, payload in row.items()}
        made = {user: one for user, one in lists.items() if user.startswith(DEFAULT_USER)}
        assert {(made.strategy, made.profile_version) for made in made.values()} <= {("popular", 0)}
        return {user: [item.item_id for item in one.items] for user, one in made.items()}

    options = BlendOptions(context=ContextPopularityOptions(("country",)))
    flink, scorer = Flink(), ScorerFunction(options, "events", 3, True, 10, 0)
    scorer.open(flink)
    recommender, now = Recommender(options), 1000.0
    crowd = [of("fr", f"f{n}", "a") for n in range(9)] + [of("de", f"d{n}", "c") for n in range(6)]
    recommender.learn([*crowd, of("it", "i", "b")])
    list(scorer.process_element2(Row(True, 0, recommender.pack(learning=False)), flink))
    monkeypatch.setattr("time.monotonic", lambda: now)
    german, anywhere = "__default__?country=de", of("it", "u", "b")
    # Of a person the newest event counts.
    assert list(lists(of("fr", "v", "a"), of("de", "v", "b"))) == [DEFAULT_USER, german]
    # What people take who are new teaches how far the context is to be heard.
    for n in range(40):
        now += 1
        found = lists(of("de", f"new {n}", "c"))
    assert (found[DEFAULT_USER][0], found[german][0]) == ("a", "c")
    scorer._ndcg = 0.0
    scorer._test(of("de", "newer", "c"))
    assert scorer._ndcg == pytest.approx(0.001)
    now += 0.9
    assert list(lists(of("de", "v", "b"))) == [DEFAULT_USER]
    now += 0.2
    assert list(lists(anywhere)) == [DEFAULT_USER]
    assert list(lists(of("de", "v", "b"))) == [DEFAULT_USER, german]


def test_what_comes_before_the_model_waits_in_the_state_and_an_erasure_among_it_is_carried_out() -> None:
    flink = Flink()
    scorer = opened(flink, model=False)
    assert take(scorer, flink, clicked("u", "1"), clicked("v", "2")) == []
    assert take(scorer, flink, clicked("u", "3", erased=True), clicked("w", "4")) == []
    assert wake(scorer, flink) == []
    assert flink.waiting.events() == ["1", "2", "3", "4"]
    # As it would after a restart.
    restarted = opened(flink)
    assert wake(restarted, flink) == [("u", None), ("v", "2"), ("w", "4")]
    assert flink.waiting.entries == []


def test_who_is_not_served_in_a_turn_waits_and_the_state_holds_what_is_newest_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    flink = Flink()
    scorer = opened(flink)
    assert take(scorer, flink, clicked("u", "1"), clicked("v", "2")) == []
    assert take(scorer, flink, clicked("w", "3"), clicked("u", "4")) == []
    assert len(flink.due) == 1
    assert flink.waiting.events() == ["1", "2", "3", "4"]
    monkeypatch.setattr("operators.scorer._TURN_S", 9.0)
    restarted_flink = Flink()
    restarted_flink.waiting.entries = list(flink.waiting.entries)
    # Who came first is first.
    served = [("u", "4"), ("v", "2"), ("w", "3")]
    assert take(opened(restarted_flink), restarted_flink, clicked("x", "5")) == [*served, ("x", "5")]
    assert wake(scorer, flink) == served
    assert (flink.due, flink.waiting.entries, restarted_flink.waiting.entries) == ([], [], [])


def test_no_more_people_wait_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    monkeypatch.setattr("operators.scorer._PEOPLE", 2)
    flink = Flink()
    scorer = opened(flink)
    # Ten are, as `opened` says.
    assert len(take(scorer, flink, *(clicked(f"u{n}", str(n)) for n in range(13)))) == 4
    assert len(flink.waiting.events()) == 9


def test_what_waits_holds_nothing_of_who_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    flink = Flink()
    scorer = opened(flink)
    take(scorer, flink, clicked("u", "1"), clicked("v", "2"))
    assert take(scorer, flink, clicked("w", "3"), clicked("u", "4", erased=True)) == [("u", None)]
    assert flink.waiting.events() == ["2", "3"]


def test_what_waits_is_written_anew_where_most_of_it_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    monkeypatch.setattr("operators.waiting_people._ENTRY", 2)
    flink = Flink()
    scorer = opened(flink)
    for n in range(50):
        take(scorer, flink, clicked("u", str(n)), clicked("v", f"{n}v"), clicked("w", f"{n}w"))
        assert len(flink.waiting.events()) <= 2 * 3 + 2
        assert flink.waiting.events()[-3:] == [str(n), f"{n}v", f"{n}w"]


def test_pauses_are_longer_where_late_events_are_of_people_who_wait_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    monkeypatch.setattr("operators.scorer._PAUSE_MS", 0)
    monkeypatch.setattr("operators.scorer._MOMENT_MS", 5_000)
    flink = Flink()
    scorer = opened(flink, target_ms=500)

    def pause_after(*snapshots: Snapshot) -> int:
        take(scorer, flink, *snapshots)
        before = int(time.time() * 1000)
        wake(scorer, flink)
        return flink.due[-1] - before

    assert pause_after(clicked("u", "1"), clicked("v", "2")) < 50
    assert pause_after(clicked("u", "3"), clicked("v", "4")) >= 500


def test_late_events_are_gathered_until_no_more_come_for_a_moment() -> None:
    flink = Flink()
    scorer = opened(flink, target_ms=500)
    assert take(scorer, flink, clicked("u", "1")) == []
    assert take(scorer, flink, clicked("v", "2"), clicked("u", "3")) == []
    # More have come since the moment began.
    assert wake(scorer, flink) == []
    assert len(flink.due) == 1
    assert wake(scorer, flink) == [("u", "3"), ("v", "2")]
    assert flink.due == []
    now = msgspec.structs.replace(clicked("w", "4"), appended_at=int(time.time() * 1000))
    assert take(scorer, flink, now) == [("w", "4")]


def test_who_waits_is_served_without_a_pause_where_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    flink = Flink()
    scorer = opened(flink)
    monkeypatch.setattr("operators.scorer._TURN_S", 0.0)
    monkeypatch.setattr("operators.scorer._PAUSE_MS", 5_000)
    monkeypatch.setattr("operators.scorer._MOMENT_MS", 5_000)
    take(scorer, flink, clicked("u", "1"), clicked("v", "2"))
    assert flink.due[-1] > time.time() * 1000 + 1_000
    wake(scorer, flink)
    assert flink.due[-1] <= time.time() * 1000
