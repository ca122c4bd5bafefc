"""What a profile says of its items: once each, where it stood last, how often, and how long ago."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.profile import Profile, ProfileOptions, apply_event, merge_profiles, snapshot
from model.snapshot import Snapshot, pack_snapshot, unpack_snapshot
from schema.event import EVENT_TYPES, Event

pytestmark = pytest.mark.unit
START = 1_600_000_000_000


def after(events: list[tuple[str, str, int]], **options: int) -> Snapshot:
    """The snapshot after the last of the events (type, item, milliseconds from START)."""
    profile, chosen = Profile(), ProfileOptions(weights={"view": 1.0, "purchase": 3.0}, **options)  # type: ignore[arg-type]
    for number, (event_type, item, at) in enumerate(events):
        event = Event(str(number), "u", event_type, START + at, item)
        outcome = apply_event(profile, event, chosen)
    return snapshot(profile, event, outcome, 0, chosen)


def test_each_item_is_listed_once_with_its_count_age_largest_weight_and_last_type() -> None:
    found = after([("purchase", "a", 0), ("view", "b", 1000), ("view", "a", 1500), ("view", "c", 2000)])
    assert found.history == ["c", "a", "b"]
    assert found.weights == [1.0, 3.0, 1.0]
    assert [EVENT_TYPES[kind] for kind in found.types] == ["view"] * 3
    assert list(found.counts) == [1, 2, 1]
    # 500 ms and 1,000 ms have 9 and 10 binary digits.
    assert list(found.ages) == [0, 9, 10]
    assert (found.event_index, found.repeated) == (0, False)
    assert unpack_snapshot(pack_snapshot(found)) == found


def test_an_item_taken_again_is_repeated_and_one_out_of_order_stands_where_it_belongs() -> None:
    assert after([("view", "a", 0), ("view", "b", 1), ("view", "a", 2)]).repeated
    late = after([("view", "a", 0), ("view", "b", 1000), ("view", "c", 500)])
    assert late.history == ["b", "c", "a"]
    assert (late.event_index, late.repeated) == (1, False)
    assert list(late.ages) == [0, 0, 9]


def test_a_rating_below_what_is_liked_is_a_dislike_until_it_is_rated_better() -> None:
    profile, options = Profile(), ProfileOptions(liked_from=3.0)
    for number, (item, value) in enumerate([("a", 4.0), ("b", 2.9), ("a", 1.0), ("b", 3.0)]):
        apply_event(profile, Event(str(number), "u", "rating", START + number, item, value), options)
    assert (profile.items, profile.disliked) == (["a", "b"], ["a"])
    # Of the two the newer opinion counts, in whatever order they come.
    apply_event(profile, Event("4", "u", "rating", START + 2, "b", 1.0), options)
    assert (profile.items, profile.disliked) == (["a", "b"], ["a"])
    # Where nothing is said of it every rating is an interaction.
    apply_event(profile, Event("5", "u", "rating", START + 5, "c", 0.0), ProfileOptions())
    assert (profile.items, profile.disliked) == (["a", "b", "c"], ["a"])


def test_the_window_bounds_distinct_items_and_what_stands_before_it_is_not_counted() -> None:
    found = after([("view", item, n) for n, item in enumerate("abcbc")], history_length=2)
    assert found.history == ["c", "b"]
    assert list(found.counts) == [2, 2]
    assert after([("view", "a", n) for n in range(200)], max_interactions=300).counts == bytes([200])
    assert after([("view", "a", n) for n in range(300)], max_interactions=300).counts == bytes([255])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1000)), min_size=1, max_size=25), st.integers(1, 12))
def test_with_or_without_repetitions_the_newest_distinct_items_are_listed(
    taken: list[tuple[int, int]], limit: int
) -> None:
    found = after([("view", f"i{item}", at) for item, at in taken], history_length=limit)
    # Stable: of equal times the later event is the newer.
    newest = [f"i{item}" for item, _ in sorted(taken, key=lambda pair: pair[1])][::-1]
    assert found.history == list(dict.fromkeys(newest))[:limit]
    assert len(found.weights) == len(found.types) == len(found.counts) == len(found.ages) == len(found.history)
    seen = list(dict.fromkeys(newest))
    scanned = newest[: newest.index(seen[limit])] if len(seen) > limit else newest
    assert list(found.counts) == [scanned.count(item) for item in found.history]
    own = f"i{taken[-1][0]}"
    assert found.event_index == (found.history.index(own) if own in found.history else -1)


KINDS = st.sampled_from(["view", "purchase", "dislike", "search"])


@given(st.lists(st.tuples(KINDS, st.integers(0, 9), st.integers(0, 50)), max_size=30), st.integers(0, 30))
def test_a_merged_profile_is_that_of_both_one_after_the_other(taken: list[tuple[str, int, int]], cut: int) -> None:
    options = ProfileOptions(max_interactions=8, max_event_ids=6, max_items=3)
    older, newer, whole = Profile(), Profile(), Profile()
    # What comes later is newer, as where a history ends before the stream begins.
    events = [
        Event(str(n), "u", kind, START + at + 100 * (n >= cut), None if kind == "search" else f"i{item}")
        for n, (kind, item, at) in enumerate(taken)
    ]
    for n, event in enumerate(events):
        apply_event(newer if n >= cut else older, event, options)
        apply_event(whole, event, options)
    assert merge_profiles(older, newer, options) == whole


def test_a_snapshot_tells_what_rules_may_ask_for() -> None:
    properties = {
        "page": "cart",
        "depth": 2,
        "mobile": True,
        "tags": ["a"],
        "text": "x" * 129,
        "x" * 129: 1,
        "vast": 1e300,
        "nothing": None,
        **{f"p{n}": n for n in range(20)},
    }
    event = Event("e", "u", "search", 1, properties=properties)
    profile = Profile(segment="loyal", price_sensitive=True)
    options = ProfileOptions()
    told = snapshot(profile, event, apply_event(profile, event, options), 0, options)
    wanted = {"page": "cart", "depth": 2.0, "mobile": True, **{f"p{n}": float(n) for n in range(13)}}
    assert told.properties == wanted
    assert (told.event_type, told.behaviour, told.price_sensitive) == ("search", "loyal", True)
    assert unpack_snapshot(pack_snapshot(told)) == told


@pytest.mark.parametrize(("older", "newer", "merged"), [("new", "", "new"), ("new", "loyal", "loyal")])
def test_a_merged_profile_is_of_the_newest_segment_that_is_known(older: str, newer: str, merged: str) -> None:
    assert merge_profiles(Profile(segment=older), Profile(segment=newer), ProfileOptions()).segment == merged
