"""Prequential evaluation: known answers, the same twice, and no list that knows the future."""

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.blend import BlendOptions
from model.context_popularity import ContextPopularityOptions
from model.evaluate import Freshness, Report, evaluate, gini
from model.profile import ProfileOptions
from schema.event import Event
from schema.item import Item

pytestmark = pytest.mark.unit
LIVE, NEXT = Freshness(), BlendOptions()


def event(number: int, user: str, item: str, event_type: str = "view") -> Event:
    return Event(str(number), user, event_type, 1_600_000_000_000 + 1000 * number, item)


def replay(
    events: list[Event],
    exclude_seen: bool = False,
    freshness: Freshness = LIVE,
    k: int = 5,
    options: BlendOptions = NEXT,
) -> tuple[Report, list[list[str]]]:
    """The report, and the list before each event."""
    lists: list[list[str]] = []
    report = evaluate(
        events,
        k,
        exclude_seen,
        ProfileOptions(),
        options,
        lambda _, __, items: lists.append(items),
        freshness=freshness,
    )
    return report, lists


def test_lists_are_the_same_twice_and_know_nothing_of_later_events() -> None:
    chance = random.Random(1)
    first = [event(n, f"u{chance.randrange(6)}", f"i{chance.randrange(15)}") for n in range(120)]
    second = [event(120 + n, f"u{n % 6}", f"j{n}") for n in range(30)]
    _, lists = replay(first + second)
    assert replay(first + second)[1] == lists
    assert replay(first)[1] == lists[:120]


def test_a_pair_that_always_comes_together_is_found_and_counted() -> None:
    events = []
    for user in range(20):
        events += [event(2 * user, f"u{user}", "bread"), event(2 * user + 1, f"u{user}", "butter", "purchase")]
    report, lists = replay(events, exclude_seen=True)
    assert lists[0] == []
    # Each butter of the last half stands first on the list after bread; bread is on the list of every new user.
    assert report.carts_and_purchases.means() == {"events": 10, "hit": 1.0, "ndcg": 1.0, "mrr": 1.0}
    assert report.all.events == 20
    assert report.all.hit == 20
    assert report.coverage == 1.0
    assert 0 < report.gini < 0.5
    # The butters: their people had one item before. Before the first one, nobody could know.
    assert (report.light.events, report.light.hit) == (10, 10)
    assert [scores.events for scores in report.quarters] == [10, 10, 10, 10]
    assert report.quarters[0].hit < report.quarters[1].hit == 10


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_is_half_the_mean_difference_relative_to_the_mean(counts: list[int]) -> None:
    size = len(counts)
    differences = sum(abs(a - b) for a in counts for b in counts) / size**2
    assert gini(counts) == pytest.approx(differences / 2 / (sum(counts) / size))
    assert gini([7] * size) == pytest.approx(0)


def test_seen_items_are_left_out_only_where_asked() -> None:
    events = [event(n, "u", f"i{n % 3}") for n in range(12)]
    assert "i0" in replay(events)[1][-1]
    assert replay(events, exclude_seen=True)[1][-1] == []


def test_a_stale_model_learns_at_the_full_hour_and_one_that_stands_still_not_in_the_second_half() -> None:
    # An event every 20 minutes, from a full hour on.
    events = [Event(str(n), "u", "view", 1_600_002_000_000 + 1_200_000 * n, f"i{n}") for n in range(12)]
    for freshness, known in ((Freshness(model_ms=3_600_000), [0, 3, 9]), (Freshness(model_ms=math.inf), [2, 5, 6])):
        _, lists = replay(events, freshness=freshness, k=20)
        assert [len({item for items in lists[: n + 1] for item in items}) for n in (2, 5, 11)] == known


def test_an_item_of_the_catalogue_is_known_from_when_it_was_created_or_from_its_first_event() -> None:
    events = [event(n, f"u{n}", item) for n, item in enumerate(["tea", "tea", "pot", "tea", "cup", "tea"])]
    at = events[1].timestamp
    catalogue = {name: Item(name, created_at=when) for name, when in (("pot", None), ("cup", at), ("jug", at + 1))}
    lists: list[set[str]] = []
    evaluate(
        events, 5, False, ProfileOptions(), NEXT, lambda _, __, items: lists.append(set(items)), catalogue=catalogue
    )
    assert lists[:5] == [set(), {"tea", "cup"}, {"tea", "cup", "jug"}, *[{"tea", "cup", "jug", "pot"}] * 2]


def test_of_somebody_new_the_context_is_known_where_contexts_are_told_apart() -> None:
    def told(at: int, user: str, item: str, country: str) -> Event:
        return msgspec.structs.replace(event(at, user, item), properties={"country": country})

    # Few take the first, and all of them are of one country.
    events = [told(n, f"u{n}", "bread" if n % 4 == 0 else "milk", "de" if n % 4 == 0 else "fr") for n in range(80)]
    events += [told(80 + n, country, "butter", country) for n, country in enumerate(("de", "fr"))]
    by_country = BlendOptions(context=ContextPopularityOptions(("country",)))
    assert [replay(events, options=by_country)[1][n][0] for n in (-2, -1)] == ["bread", "milk"]
    assert [replay(events)[1][n][0] for n in (-2, -1)] == ["milk", "milk"]


def test_a_stale_profile_gets_the_list_of_people_without_history() -> None:
    pairs = [("a", "bread"), ("a", "butter"), ("b", "bread"), ("b", "butter"), *[(f"u{n}", "milk") for n in range(9)]]
    events = [event(n, *pair) for n, pair in enumerate([*pairs, ("c", "bread"), ("c", "butter")])]
    live, stale = (replay(events, True, Freshness(profile_ms=period))[1][-1] for period in (0, 3_600_000))
    assert live[0] == "butter"
    assert stale[0] == "milk"
