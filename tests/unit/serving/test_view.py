"""The view: what it keeps of the topics, in which order, and what of it outlives the process."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.behaviour import PersonSegment
from schema.errors import MessageError
from schema.forbidden_item import ForbiddenItem, encode_forbidden_item
from schema.recommendation import Recommendation, ScoredItem, encode_recommendation
from schema.similar_items import SimilarItems, encode_similar_items
from serving.view import RESTARTED_MS, Record, Row, View

pytestmark = pytest.mark.unit
NAMES = ("recommendations", "items", "similar-items")
DAY = RESTARTED_MS


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    view = View(tmp_path / "view", *NAMES)
    yield view
    view.close()


def list_record(user: str, version: int, at: int = 0, offset: int = 0, strategy: str = "personal") -> Record:
    """A list whose only item names its version, of a profile whose newest event is of `at`, caused by a late one."""
    items = [ScoredItem(f"i{version}", 1.0, "history")]
    made = Recommendation(user, f"l{version}", at, "e", at - 30 * DAY, version, strategy, items, version, at)
    return Record("recommendations", 0, offset, user.encode(), encode_recommendation(made))


def item_record(item_id: str, offset: int = 0, **fields: object) -> Record:
    return Record("items", 0, offset, item_id.encode(), msgspec.json.encode({"item_id": item_id, **fields}))


def version_of(view: View, user: str) -> int | None:
    raw = view.recommendations(user)
    return None if raw is None else msgspec.json.decode(raw)["profile_version"]


def test_the_newest_list_is_kept_and_a_repeated_older_one_is_not(view: View) -> None:
    assert view.apply([list_record("u", 1), list_record("u", 3), list_record("v", 1)]) == ["u", "v"]
    assert view.apply([list_record("u", 2, offset=7)]) == []
    assert (version_of(view, "u"), version_of(view, "v"), version_of(view, "w")) == (3, 1, None)
    assert view.place("recommendations", 0) == 8
    # The same version again is the same list, made again.
    assert view.apply([list_record("u", 3)]) == ["u"]


def test_a_profile_that_began_anew_is_told_from_one_that_is_read_again(view: View) -> None:
    view.apply([list_record("u", 300, at=5 * DAY)])
    assert view.apply([list_record("u", 1, at=6 * DAY)]) == []
    assert view.apply([list_record("u", 1, at=6 * DAY + 1)]) == ["u"]


def test_a_session_without_consent_has_no_version_and_hides_none(view: View) -> None:
    view.apply([list_record("u", 9, at=5)])
    assert view.apply([list_record("u", 0, at=4, strategy="session")]) == []
    view.apply([list_record("u", 0, at=6, strategy="session")])
    assert version_of(view, "u") == 0
    # As after a restart of the job, which reads the events before the session again.
    assert view.apply([list_record("u", 7, at=3), list_record("u", 0, at=4, strategy="session")]) == []
    view.apply([list_record("u", 10, at=7)])
    assert version_of(view, "u") == 10


def test_an_erased_user_is_gone_and_may_come_back(view: View) -> None:
    view.apply([list_record("u", 9)])
    assert view.users == 1
    assert view.apply([Record("recommendations", 0, 1, b"u", None)]) == ["u"]
    assert (view.recommendations("u"), view.users) == (None, 0)
    view.apply([list_record("u", 1)])
    assert (version_of(view, "u"), view.users) == (1, 1)


def test_what_is_not_a_list_is_passed_over(view: View) -> None:
    bad = [Record("recommendations", 0, 4, b"u", value) for value in (b"", b"{", b"[]", b"{}", b'{"user_id":"\xff"}')]
    assert view.apply([*bad, Record("recommendations", 0, 5, None, b"{}"), Record("items", 0, 6, b"i", b"{")]) == []
    assert (view.users, view.items) == (0, 0)
    assert (view.place("recommendations", 0), view.place("items", 0)) == (6, 7)


def test_items_are_found_by_words_and_category_as_they_are_described_now(view: View) -> None:
    view.apply(
        [
            item_record("a", title="Red Shoe", category=["shoes", "sport"], brand="Acme"),
            item_record("b", title="Red hat", category=["hats"], price=5),
            item_record("c", title="Blue shoes", category=["shoes"]),
        ]
    )
    assert view.search("red", None, 10) == ["a", "b"]
    assert view.search("sho", None, 10) == ["a", "c"]
    assert view.search("shoe ", None, 10) == ["a"]
    assert view.search("acme RED", None, 10) == ["a"]
    assert view.search("", "shoes", 10) == ["a", "c"]
    assert view.search("red", "hats", 10) == ["b"]
    assert view.search("green", None, 10) == []
    assert view.search("", None, 2) == ["a", "b"]
    assert view.search("red " * 60 + "shoe", None, 10) == ["a"]
    assert view.categories(10) == ["hats", "shoes"]
    view.apply([item_record("b", title="Green cap", category=["caps"]), Record("items", 0, 1, b"a", None)])
    assert view.search("red", None, 10) == []
    assert view.search("gre", None, 10) == ["b"]
    assert view.categories(10) == ["caps", "shoes"]
    assert (view.items, view.item("a")) == (2, None)
    assert view.gone == {"a"}
    view.apply([item_record("a", title="Red Shoe"), item_record("c", available=False)])
    assert view.gone == {"c"}


def test_a_row_of_a_lower_number_does_not_take_the_place_of_a_higher_one(tmp_path: Path) -> None:
    view = View(tmp_path, *NAMES, tables={"offers": lambda _, raw: Row("spring", 0, raw, int(raw))})
    for offset, number in enumerate((b"2", b"5", b"3")):
        view.apply([Record("offers", offset, 0, b"somebody", number)])
    assert list(view.rows("offers")) == [b"5"]
    view.close()


def test_what_is_forbidden_is_hidden_whether_it_is_in_stock_or_not(tmp_path: Path) -> None:
    view = View(tmp_path, *NAMES)
    forbidden = encode_forbidden_item(ForbiddenItem("a", 1))
    view.apply([Record("forbidden-items", 0, at, b"a", value) for at, value in enumerate((forbidden, b"{"))])
    view.apply([item_record("a"), item_record("b", available=False)])
    assert view.gone == {"a", "b"}
    view.close()
    view = View(tmp_path, *NAMES)
    view.apply([item_record("b"), Record("forbidden-items", 0, 2, b"c", forbidden)])
    assert view.gone == {"a", "c"}
    view.apply([Record("forbidden-items", 0, 3, b"a", None), item_record("c")])
    assert view.gone == {"c"}
    view.close()


def test_similar_items_are_replaced_and_removed(view: View) -> None:
    first, second = (encode_similar_items(SimilarItems("a", at, 1, [])) for at in (1, 2))
    view.apply([Record("similar-items", 0, at, b"a", value) for at, value in enumerate((first, second, b"{", b"\xff"))])
    assert view.similar("a") == second
    view.apply([Record("similar-items", 0, 2, b"a", None)])
    assert view.similar("a") is None


def test_tables_hold_the_newest_valid_message_of_each_key_and_segments_are_counted(tmp_path: Path) -> None:
    def row_of(key: str, raw: bytes) -> Row:
        if b"bad" in raw:
            raise MessageError("bad", key, "bad", "bad")
        return Row(key, int(raw) // 10, raw)

    view = View(tmp_path, *NAMES, tables={"rules": row_of, "rules-of-another": row_of})
    given = [
        ("b", b"1"),
        ("a", b"2"),
        ("a", b"bad"),
        ("a", b"\xff"),
        ("c", b"3"),
        ("c", None),
        ("b", b"4"),
        ("d", b"null"),
    ]
    view.apply(Record("rules", 0, n, key.encode(), value) for n, (key, value) in enumerate(given))
    assert ([*view.rows("rules")], [*view.rows("rules-of-another")], view.place("rules", 0)) == ([b"2", b"4"], [], 8)

    def told(user: str, segment: str | None) -> Record:
        value = None if segment is None else msgspec.json.encode(PersonSegment(user, segment, False, 1))  # type: ignore[arg-type]
        return Record("segments", 0, 0, user.encode(), value)

    view.apply([told("u", "new"), told("v", "new"), told("u", "loyal"), told("w", "new")])
    view.apply([told("w", None), told("v", "new"), Record("segments", 0, 0, b"u", b'{"segment":"of another version"}')])
    view.close()
    again = View(tmp_path, *NAMES, tables={"rules": row_of})
    assert {name: count for name, count in again.segments.items() if count} == {"new": 1, "loyal": 1}
    assert [*again.rows("rules")] == [b"2", b"4"]
    # Of a table with periods only the newest counts: the hour of trends.
    again.apply(
        Record("rules", 0, 9, key, value) for key, value in ((b"x", b"5"), (b"a", b"11"), (b"b", b"6"), (b"c", b"12"))
    )
    assert [*again.rows("rules")] == [b"11", b"12"]
    again.close()


def test_a_view_that_was_away_for_too_long_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = View(tmp_path, *NAMES)
    first.apply([list_record("u", 1)])
    first.seen()
    first.close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 40_000)
    second = View(tmp_path, *NAMES)
    assert (version_of(second, "u"), second.place("recommendations", 0)) == (1, 1)
    second.close()
    monkeypatch.setattr(time, "time", lambda: now + 50_000)
    third = View(tmp_path, *NAMES)
    assert (version_of(third, "u"), third.place("recommendations", 0), third.users) == (None, None, 0)
    third.close()


messages = st.lists(
    st.one_of(
        st.builds(list_record, st.sampled_from("uvw"), st.integers(0, 5)),
        st.builds(lambda user: Record("recommendations", 0, 0, user.encode(), None), st.sampled_from("uvw")),
        st.builds(
            lambda item, title, shown: item_record(item, title=title, available=shown),
            st.sampled_from("abc"),
            st.sampled_from(["red hat", "red", "hat"]),
            st.booleans(),
        ),
        st.builds(lambda item: Record("items", 0, 0, item.encode(), None), st.sampled_from("abc")),
    ),
    max_size=30,
)


def held(view: View) -> object:
    lists = {user: view.recommendations(user) for user in "uvw"}
    words = {word: view.search(word, None, 9) for word in ("red ", "hat ", "")}
    return lists, words, view.of_catalogue(list("abc")), view.gone, view.users, view.items


@settings(max_examples=30, deadline=None)
@given(messages, st.integers(1, 9))
def test_however_the_stream_is_cut_and_the_process_restarted_the_view_is_one(
    tmp_path_factory: pytest.TempPathFactory, given_messages: list[Record], size: int
) -> None:
    records = [record._replace(offset=number) for number, record in enumerate(given_messages)]
    whole = View(tmp_path_factory.mktemp("whole"), *NAMES)
    whole.apply(records)
    folder = tmp_path_factory.mktemp("parts")
    for start in range(0, len(records), size):
        part = View(folder, *NAMES)
        part.apply(records[start : start + size])
        part.close()
    parts = View(folder, *NAMES)
    assert held(parts) == held(whole)
    assert len(whole.gone) <= 3
    assert whole.users == sum(whole.recommendations(user) is not None for user in "uvw")
    parts.close()
    whole.close()
