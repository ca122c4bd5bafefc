"""A person's segment and cart: by recency and frequency, in whatever order the actions come, and packed and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.behaviour import (
    DAY_MS,
    Action,
    BehaviourOptions,
    Person,
    abandoned,
    act,
    next_look,
    pack_person,
    segment,
    unpack_person,
)

pytestmark = pytest.mark.unit
OPTIONS = BehaviourOptions()
START = 1_600_000_000_000 // DAY_MS * DAY_MS
HOUR_MS = 3_600_000


def action(kind: str, day: float, item: str | None = "i", price: float | None = None) -> Action:
    return Action("u", kind, item, "c", price, START + round(day * DAY_MS))


def person_of(*actions: Action) -> Person:
    person = Person()
    for one in actions:
        act(person, one, OPTIONS)
    return person


def segment_at(person: Person, day: float) -> str:
    segment(person, "u", START + round(day * DAY_MS), OPTIONS)
    return person.segment


def test_segments_follow_how_long_ago_and_how_often() -> None:
    seen = person_of(action("view", 0))
    assert [segment_at(seen, day) for day in (0, 6.9, 7)] == ["new", "new", "lapsing"]
    often = person_of(*(action("view", day) for day in range(0, 20, 5)))
    assert segment_at(often, 15) == "regular"
    act(often, action("purchase", 16), OPTIONS)
    assert [segment_at(often, day) for day in (16, 27, 29)] == ["loyal", "loyal", "lapsing"]
    # Whose days lie far apart is waited for longer.
    seldom = person_of(*(action("view", day) for day in (0, 20, 40)))
    assert [segment_at(seldom, day) for day in (41, 99, 100)] == ["regular", "regular", "lapsing"]


def test_who_is_new_or_loyal_is_looked_at_again_when_that_ends() -> None:
    person = person_of(action("view", 0.5))
    segment_at(person, 0.5)
    assert next_look(person, START, OPTIONS) == START + round(7.5 * DAY_MS)
    loyal = person_of(*(action("purchase", day) for day in (0, 9, 18, 27)))
    assert segment_at(loyal, 27) == "loyal"
    now = START + round(27.2 * DAY_MS)
    while loyal.segment == "loyal":
        at = next_look(loyal, now, OPTIONS)
        assert at is not None
        now = at
        segment(loyal, "u", now, OPTIONS)
    assert (now, loyal.segment) == (START + 28 * DAY_MS, "regular")


def test_a_change_is_told_once() -> None:
    person = person_of(action("view", 0))
    told = segment(person, "u", START, OPTIONS)
    assert told is not None
    assert (told.segment, told.price_sensitive, told.since) == ("new", False, START)
    assert segment(person, "u", START + HOUR_MS, OPTIONS) is None


def test_who_buys_what_is_cheap_among_what_they_look_at_is_sensitive_to_prices() -> None:
    looks = [action("view", 0, price=100.0) for _ in range(3)]
    for paid, expected in ((80.0, True), (81.0, False)):
        person = person_of(*looks, *(action("purchase", 0, price=paid) for _ in range(3)))
        segment(person, "u", START, OPTIONS)
        assert person.price_sensitive is expected
    assert not person_of(*looks, action("purchase", 0, price=1.0)).price_sensitive


def test_a_cart_is_left_an_hour_after_its_last_change_without_what_was_bought() -> None:
    person = person_of(action("add_to_cart", 0, "a"), action("add_to_cart", 0.01, "b"), action("purchase", 0.02, "a"))
    at = START + round(0.02 * DAY_MS) + HOUR_MS
    assert next_look(person, START, OPTIONS) == at
    assert abandoned(person, "u", at - 1, OPTIONS) is None
    left = abandoned(person, "u", at, OPTIONS)
    assert left is not None
    assert (left.items, left.last_added_at) == (["b"], START + round(0.01 * DAY_MS))
    assert abandoned(person, "u", at + HOUR_MS, OPTIONS) is None
    # A purchase that is heard of late does not take out what came after it.
    late = person_of(action("add_to_cart", 1, "a"), action("purchase", 0.5, "a"))
    assert list(late.cart) == ["a"]
    # Nor does what is put in late come back once it was bought.
    bought = person_of(action("purchase", 1, "a"), action("add_to_cart", 0.5, "a"))
    assert bought.cart == {}
    assert unpack_person(pack_person(bought)).out == {"a": START + DAY_MS}


def test_a_cart_and_the_days_are_bounded() -> None:
    person = person_of(*(action("add_to_cart", n / 10, f"i{n}") for n in range(900)))
    assert list(person.cart) == [f"i{n}" for n in range(850, 900)]
    assert len(person.days) == 2 * OPTIONS.recent_days


@given(st.permutations([0.0, 0.2, 3.1, 8.0, 9.5, 30.0]))
def test_days_and_sums_do_not_depend_on_the_order(days: list[float]) -> None:
    person = person_of(*(action("view", day, price=day) for day in days))
    expected = person_of(*(action("view", day, price=day) for day in sorted(days)))
    assert (person.days, person.first_ms, person.last_ms) == (expected.days, expected.first_ms, expected.last_ms)
    assert person.viewed_sum == pytest.approx(expected.viewed_sum)


def test_a_person_comes_back_and_another_version_is_refused() -> None:
    person = person_of(action("add_to_cart", 0, "a", 2.0), action("purchase", 1, "b", 3.0))
    assert unpack_person(pack_person(person)) == person
    with pytest.raises(ValueError, match="version 9"):
        unpack_person(b"\x09" + pack_person(person)[1:])
