"""The fault suite's recount against the model's own counting, on events as the suite sends them."""

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.chaos.load import MALFORMED, POISON
from deploy.chaos.recount import Recount, compare
from model.blend import BlendOptions, Recommender
from model.profile import Profile, ProfileOptions, apply_event, snapshot
from schema.event import EventParser

pytestmark = pytest.mark.unit
NOW = 1_700_000_000_000
DAY = 86_400_000

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["view", "purchase", "search", "impression"]),
        st.integers(0, 70),
        st.sampled_from([0, 1000, -5000, DAY // 2, -3 * DAY]),
    ),
    max_size=250,
)


def records(events: list[tuple[int, str, int, int]]) -> list[Any]:
    made = []
    for n, (user, kind, item, shift) in enumerate(events):
        fields = {"event_id": f"e{n}", "user_id": f"u{user}", "event_type": kind, "timestamp": NOW + n + shift}
        fields |= {} if kind == "search" else {"item_id": f"i{item}"}
        value = json.dumps(fields).encode()
        copies = 1 + n % 3
        made += [SimpleNamespace(partition=0, offset=3 * n + copy, value=value, headers=[]) for copy in range(copies)]
    return made


@settings(max_examples=25, deadline=None)
@given(EVENTS)
def test_recount_equals_what_profiles_and_cooccurrence_count(events: list[tuple[int, str, int, int]]) -> None:
    recount = Recount()
    recount.take(records(events))

    parser, options, profiles, snapshots = EventParser(), ProfileOptions(), {}, []
    for record in records(events):
        event = parser.parse(record.value, NOW)
        profile = profiles.setdefault(event.user_id, Profile())
        outcome = apply_event(profile, event, options)
        if outcome.accepted:
            snapshots.append(snapshot(profile, event, outcome, 0, options))
    recommender = Recommender(BlendOptions())
    recommender.learn(snapshots)
    ids, learned = recommender.index.ids, recommender.cooccurrence
    items = {ids[row]: float(count) for row, count in enumerate(learned.counts) if count > 0}
    pairs = {
        (ids[row], ids[other]): float(weight)
        for row in range(len(ids))
        for other, weight in zip(learned.neighbours[row].tolist(), learned.weights[row].tolist(), strict=True)
        if other >= 0
    }
    assert recount.events == Counter({user: sum(profile.counters) for user, profile in profiles.items()})
    assert compare(dict(recount.items), items) == (0, 0)
    assert compare(dict(recount.pairs), pairs) == (0, 0)


def test_dead_letters_are_the_malformed_and_the_first_of_each_poison() -> None:
    def record(offset: int, value: bytes, *headers: str) -> Any:
        return SimpleNamespace(partition=1, offset=offset, value=value, headers=[(name, b"1") for name in headers])

    fields = {"event_id": "e", "user_id": "u", "event_type": "view", "timestamp": NOW, "item_id": POISON}
    poison = json.dumps(fields).encode()
    recount = Recount()
    recount.take([record(0, b"{", MALFORMED), record(1, poison), record(2, poison)])
    assert recount.dead == {(1, 0), (1, 1)}
    assert (recount.events, recount.items, recount.messages) == ({"u": 1}, {}, 3)


def test_compare_sees_one_interaction_too_few_and_one_too_many() -> None:
    ought = {"a": 1000.0, "b": 50**-0.5, "c": 3.0}
    assert compare(ought, {"a": 1000.001, "b": 50**-0.5, "c": 3.0}) == (0, 0)
    assert compare(ought, {"a": 1000 - 50**-0.5, "c": 3.0 + 50**-0.5}) == (2, 1)
