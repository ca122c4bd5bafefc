"""From the held list to the one that is asked for."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from schema.category_items import CategoryItems, encode_category_items
from schema.recommendation import DEFAULT_USER, Recommendation, ScoredItem, encode_recommendation
from schema.similar_items import SimilarItem
from serving.lists import Wanted, list_of
from serving.messages import UserList
from serving.view import Record, View

pytestmark = pytest.mark.unit


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    """Ann has items a, b, c; people without history get c, d, e, f. Item n costs n; b is of another category."""
    view = View(tmp_path, "recommendations", "items", "similar-items")
    described = [
        {"item_id": item, "title": item.upper(), "price": price, "category": ["all", "odd" if item == "b" else "even"]}
        for price, item in enumerate("abcdef")
    ]
    records = [Record("items", 0, 0, item["item_id"].encode(), msgspec.json.encode(item)) for item in described]
    for user, items in (("ann", "abc"), (DEFAULT_USER, "cdef")):
        scored = [ScoredItem(item, 0.5, "cooccurrence", "x") for item in items]
        made = Recommendation(user, f"list-{user}", 1, "e1", 1, 7, "personal", scored, 3)
        records.append(Record("recommendations", 0, 0, user.encode(), encode_recommendation(made)))
    view.apply(records)
    yield view
    view.close()


def ids(found: UserList) -> str:
    return "".join(item.item_id for item in found.items)


def test_a_persons_list_comes_first_and_the_default_fills_it_up_where_that_is_asked_for(view: View) -> None:
    assert ids(list_of(view, "ann", "ann", Wanted(5))) == "abc"
    found = list_of(view, "ann", "ann", Wanted(5, fill=True))
    assert (ids(found), found.strategy, found.list_id, found.profile_version) == ("abcde", "personal", "list-ann", 3)
    assert ids(list_of(view, "ann", "ann", Wanted(2))) == "ab"
    assert found.items[0].because == "x"


def test_an_unknown_person_gets_the_default_list_and_is_told(view: View) -> None:
    found = list_of(view, "bob", "bob", Wanted())
    assert (ids(found), found.strategy, found.user_id, found.event_id) == ("cdef", "default", "bob", None)


def test_in_a_category_people_without_a_list_get_what_is_popular_there(view: View) -> None:
    items = [SimilarItem(item, score) for item, score in (("a", 1.0), ("f", 0.5), ("b", 0.2))]
    said = encode_category_items(CategoryItems("even", 1, items))
    view.apply([Record("category-items", 0, 0, b"even", said), Record("category-items", 0, 1, b"odd", b"{")])
    found = list_of(view, "bob", "bob", Wanted(category="even"))
    # Of item b the catalogue says that it is of another category by now.
    assert (ids(found), found.strategy, found.list_id) == ("afcde", "default", None)
    assert [item.source for item in found.items[:2]] == ["popularity"] * 2
    assert ids(list_of(view, "bob", "bob", Wanted(category="odd"))) == ""
    assert ids(list_of(view, "ann", "ann", Wanted(category="even"))) == "ac"
    assert ids(list_of(view, "ann", "ann", Wanted(category="even", fill=True))) == "acfde"
    view.apply([Record("category-items", 0, 2, b"even", None)])
    assert ids(list_of(view, "bob", "bob", Wanted(category="even"))) == "cdef"


def test_an_unknown_person_gets_the_list_of_their_context_where_there_is_one(view: View) -> None:
    key = "__default__?country=DE&device=phone"
    made = Recommendation(key, "by-context", 1, "e1", 1, 7, "popular", [ScoredItem("e", 0.5, "popularity")])
    view.apply([Record("recommendations", 0, 0, key.encode(), encode_recommendation(made))])
    asked = Wanted(context={"device": "phone", "country": "DE"})
    found = list_of(view, "bob", "bob", asked)
    assert (ids(found), found.strategy, found.list_id, found.user_id) == ("e", "default", "by-context", "bob")
    assert ids(list_of(view, "bob", "bob", Wanted(context={"country": "DE"}))) == "cdef"
    assert ids(list_of(view, "ann", "ann", msgspec.structs.replace(asked, fill=True))) == "abce"
    # A week later nobody has come from there any more.
    later = msgspec.structs.replace(made, generated_at=2 + 7 * 86_400_000, items=[], profile_version=3)
    view.apply([Record("recommendations", 0, 0, DEFAULT_USER.encode(), encode_recommendation(later))])
    assert ids(list_of(view, "bob", "bob", asked)) == ""


def test_without_any_list_there_is_an_empty_one(tmp_path: Path) -> None:
    empty = View(tmp_path / "empty", "recommendations", "items", "similar-items")
    assert list_of(empty, "ann", "ann", Wanted()) == UserList("ann", None, None, None, 0, 0, "default", [])
    empty.close()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(exclude=frozenset("ad")), "bc"),
        (Wanted(exclude=frozenset("ad"), fill=True), "bcef"),
        (Wanted(category="odd", fill=True), "b"),
        (Wanted(category="all", k=2), "ab"),
        (Wanted(min_price=2), "c"),
        (Wanted(min_price=1, max_price=3, fill=True), "bcd"),
        (Wanted(max_price=0), "a"),
    ],
)
def test_what_is_asked_for_is_kept(view: View, wanted: Wanted, expected: str) -> None:
    assert ids(list_of(view, "ann", "ann", wanted)) == expected


def test_items_that_are_gone_or_in_no_catalogue_are_not_offered(view: View) -> None:
    view.apply(
        [
            Record("items", 0, 0, b"a", None),
            Record("items", 0, 0, b"d", b'{"item_id":"d","available":false}'),
        ]
    )
    assert ids(list_of(view, "ann", "ann", Wanted(fill=True))) == "bcef"
    assert ids(list_of(view, "ann", "ann", Wanted(min_price=0, fill=True))) == "bcef"


def test_details_are_of_the_catalogue(view: View) -> None:
    view.apply([Record("items", 0, 0, b"a", None)])
    found = list_of(view, "ann", "ann", Wanted(1, details=True)).items[0]
    assert (found.item_id, found.title, found.price, found.category) == ("b", "B", 1, ["all", "odd"])
