"""The blended recommender: a replica follows the learner, packing keeps it, and a batch equals one at a time."""

import math
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.arrays import largest_of, pack_array
from model.blend import BlendOptions, Recommender
from model.content import ContentOptions, tokens_of
from model.context_popularity import ContextPopularityOptions
from model.delta import CatalogueChange, change_of, pack_delta, unpack_delta
from model.devices import on_host
from model.learned_blend import LearnedBlend, LearnedBlendOptions
from model.linear_item_model import LinearItemModelOptions
from model.matrix_factorization import MatrixFactorizationOptions
from model.popularity import PopularityOptions
from model.profile import Profile, ProfileOptions, apply_event, pack_profile, unpack_profile
from model.rules import attributes_of
from model.sequence_model import SequenceModel, SequenceOptions
from model.snapshot import Snapshot, unpack_snapshot
from model.user_neighbours import UserNeighboursOptions
from model.user_segments import UserSegmentsOptions
from schema.event import Event
from schema.item import Item
from tests.streams import snapshots

pytestmark = pytest.mark.unit
OPTIONS = ProfileOptions()
SOLVED_OFTEN = BlendOptions(
    linear=LinearItemModelOptions(slots=8, regularization=1.0, first=10, step=8, item_first=2, step_items=3)
)


streams = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=150)


ALL_SOURCES = replace(
    SOLVED_OFTEN,
    context=ContextPopularityOptions(("country",), contexts=2),
    user_neighbours=UserNeighboursOptions(3),
    user_segments=UserSegmentsOptions(2, after=5),
    learned=LearnedBlendOptions(clusters=2),
    factorization=MatrixFactorizationOptions(step=10),
)
FEW_SCORED = replace(SOLVED_OFTEN, whole_catalogue=4, popular=3)
WITH_SEQUENCE = replace(
    SOLVED_OFTEN,
    sequence=SequenceOptions(
        network="transformer", dimensions=4, history=8, reservoir=8, step=8, updates=1, learning_rate=0.02
    ),
)


@settings(max_examples=45, deadline=None)
@given(streams, st.integers(1, 40), st.sampled_from([SOLVED_OFTEN, ALL_SOURCES, FEW_SCORED, WITH_SEQUENCE]))
def test_replica_restored_and_single_steps_agree(
    pairs: list[tuple[int, int]], size: int, options: BlendOptions
) -> None:
    events = snapshots(pairs)
    learner, replica, single = (Recommender(options) for _ in range(3))
    for start in range(0, len(events), size):
        replica.apply(unpack_delta(pack_delta(learner.learn(events[start : start + size]))))
    for event in events:
        single.learn([event])
    words = [tokens_of(Item("x", title=f"kind {item % 2}")) for item in range(9)]
    changes = [CatalogueChange(f"i{item}", True, f"c{item % 3}", words[item]) for item in range(9)]
    replica.apply(unpack_delta(pack_delta(learner.learn([], changes))))
    single.learn([], changes)
    restored = Recommender.unpack(learner.pack(), options)
    begun = Recommender.unpack(learner.pack(learning=False), options)
    for query in events[-3:]:
        expected = learner.recommend([query], 20)[0]
        assert len(set(expected.item_ids)) == len(expected.item_ids)
        for other in (replica, restored, begun, single):
            found = other.recommend([query], 20)[0]
            assert found.segment == expected.segment
            assert dict(zip(found.item_ids, found.scores, strict=True)) == pytest.approx(
                dict(zip(expected.item_ids, expected.scores, strict=True)), abs=1e-3
            )
    together = learner.recommend(events[-3:], 20)
    for query, ranked in zip(events[-3:], together, strict=True):
        assert ranked.scores == pytest.approx(learner.recommend([query], 20)[0].scores, abs=1e-4)


def test_an_item_that_nobody_took_is_listed_for_its_words_or_by_chance() -> None:
    kinds = ["shoe", "lamp", "shoe", "lamp"]
    changes = [CatalogueChange(f"i{n}", True, None, tokens_of(Item("x", title=kind))) for n, kind in enumerate(kinds)]
    events = snapshots([(0, 0), (1, 1)])
    for share, k, expected in ((0.0, 20, ("i2", "content", "i0", None)), (0.5, 2, ("i2", "new", "i0", 1.0))):
        options = BlendOptions(content=ContentOptions(share=share, new_until=1))
        learner, replica = Recommender(options), Recommender(options)
        replica.apply(unpack_delta(pack_delta(learner.learn([], changes))))
        replica.apply(unpack_delta(pack_delta(learner.learn(events))))
        for one in (learner, replica, Recommender.unpack(learner.pack(), options)):
            (ranked,) = one.recommend(events[:1], k)
            entries = zip(ranked.item_ids, ranked.sources, ranked.because, ranked.propensities, strict=True)
            assert expected in list(entries)
            (alone,) = one.recommend([msgspec.structs.replace(events[0], excluded=["i2"])], k)
            assert "i2" not in alone.item_ids


def test_of_what_the_order_knows_nothing_of_thompson_sampling_draws_each_alike() -> None:
    changes = [CatalogueChange(f"i{n}", True, None, tokens_of(Item("x", title="shoe"))) for n in range(5)]
    options = BlendOptions(content=ContentOptions(share=0.5, new_until=1, thompson=True))
    recommender = Recommender(options)
    recommender.learn(snapshots([(0, 0)]), changes)
    queries = [msgspec.structs.replace(query, event_id=f"e{n}") for n in range(400) for query in snapshots([(0, 0)])]
    lists = recommender.recommend(queries, 2)
    counts = Counter(ranked.item_ids[ranked.sources.index("new")] for ranked in lists)
    assert sorted(counts) == ["i1", "i2", "i3", "i4"]
    assert min(counts.values()) > 60
    assert all(
        max(ranked.propensities, key=bool) == pytest.approx(0.25) for ranked in recommender.recommend(queries, 2)
    )


def test_for_any_time_the_last_item_says_no_more_than_the_first_and_the_next_event_teaches_no_order() -> None:
    options = BlendOptions(linear=SOLVED_OFTEN.linear, horizon="any")
    recommender, blend = Recommender(options), LearnedBlend(options.learned)
    # Who takes 0 takes 3, who takes 1 takes 4; 2 is taken by all.
    pairs = [(user, item) for user in range(40) for item in (user % 2, 2, 3 + user % 2)]
    recommender.learn(snapshots(pairs))
    (query,) = snapshots([(0, 2), (0, 0)])[-1:]
    turned = msgspec.structs.replace(query, history=query.history[::-1], weights=query.weights[::-1])
    listed, again = recommender.recommend([query, turned], 5, blend)
    assert listed.item_ids == again.item_ids
    assert listed.item_ids.index("i3") < listed.item_ids.index("i4")
    assert listed.sources[listed.item_ids.index("i3")] == "linear"
    recommender.feedback(query, blend)
    assert blend.pack() == LearnedBlend(options.learned).pack()


def test_co_occurring_item_comes_first_and_removed_items_never() -> None:
    recommender = Recommender(BlendOptions())
    recommender.learn(snapshots([(0, 1), (0, 2), (1, 1), (1, 2), (2, 3), (2, 4)]))
    query = Snapshot("new", "e", 1_600_000_009_000, 0, ["i1"], [1.0], excluded=["i1"])
    assert recommender.recommend([query], 3)[0].item_ids[0] == "i2"
    recommender.learn([], [CatalogueChange("i2", False)])
    assert "i2" not in recommender.recommend([query], 10)[0].item_ids


def test_a_list_says_which_item_of_the_history_led_to_each() -> None:
    pairs = [(user, item) for user in range(9) for item in (0, 1)] + [
        (user, item) for user in (20, 21) for item in (5, 6)
    ]
    for explain in (True, False):
        recommender = Recommender(BlendOptions(explain=explain))
        recommender.learn(snapshots(pairs))
        query = Snapshot("new", "e", 1_600_000_009_000, 0, ["i5", "i0"], [1.0, 1.0], excluded=["i0", "i5"])
        (listed,) = recommender.recommend([query], 3)
        assert dict(zip(listed.item_ids, listed.because, strict=True)) == (
            {"i1": "i0", "i6": "i5"} if explain else {"i1": None, "i6": None}
        )


def test_similar_items_are_told_as_items_grow_and_leave_out_what_is_gone() -> None:
    recommender = Recommender(replace(BlendOptions(), max_items=3))
    delta = recommender.learn(snapshots([(0, 0), (0, 1), (1, 0), (1, 2)]))
    told = {similar.item_id: similar.item_ids for similar in recommender.similar_items(delta, 5)}
    assert told == {"i0": ["i1", "i2"], "i1": ["i0"], "i2": ["i0"]}
    recommender.learn([], [CatalogueChange("i1", False)])
    delta = recommender.learn(snapshots([(7, 2), (7, 0), (8, 2), (8, 0), (8, 3)]))
    assert {similar.item_id: similar.item_ids for similar in recommender.similar_items(delta, 1)}["i0"] == ["i2"]
    assert recommender.forgotten == []
    delta = recommender.learn(snapshots([(9, 2)]))
    assert delta.kept
    assert recommender.forgotten == ["i1"]


def test_a_batch_in_which_nothing_was_valid_is_learned_before_any_item_is_known() -> None:
    learner, replica = Recommender(BlendOptions()), Recommender(BlendOptions())
    replica.apply(unpack_delta(pack_delta(learner.learn([]))))
    assert replica.version == learner.version == 0
    assert Recommender.unpack(learner.pack(), BlendOptions()).recommend(snapshots([(0, 1)]), 5)[0].item_ids == []


@given(streams, st.integers(1, 40), st.lists(st.integers(0, 12), max_size=4), st.sampled_from([100.0, 1e9]))
def test_the_most_popular_are_those_of_a_search_of_all_however_often_they_are_looked_for(
    pairs: list[tuple[int, int]], size: int, blocked: list[int], half_life_ms: float
) -> None:
    # With the shorter half-life the landmark moves every few events.
    recommender = Recommender(replace(FEW_SCORED, popularity=PopularityOptions(half_life_ms)))
    events = snapshots(pairs)
    for start in range(0, len(events), size):
        changes = [CatalogueChange(f"i{item}", start % 2 == 0) for item in blocked]
        recommender.learn(events[start : start + size], changes)
        prior = np.where(recommender.blocked, -np.inf, on_host(recommender.popularity.score(1.0)))
        sums = np.where(prior > -np.inf, recommender.popularity.sums.numpy(), -np.inf)
        expected = largest_of(sums, FEW_SCORED.popular, -math.inf)
        np.testing.assert_array_equal(recommender._most_popular(prior), expected)


def test_state_written_before_types_and_categories_is_read() -> None:
    fields = ["u0", "e", 1_600_000_001_000, 2, ["i2", "i1"], [1.0, 1.0], 0, "i2", [], False, 2]
    old = unpack_snapshot(msgspec.msgpack.encode(fields))
    assert old.types == b""
    recommender = Recommender(BlendOptions())
    recommender.learn([*snapshots([(1, 1), (1, 2), (1, 3)]), old])
    packed = recommender.pack()
    without = msgspec.msgpack.encode(msgspec.msgpack.decode(packed[1:])[:-2])
    restored = Recommender.unpack(packed[:1] + without, BlendOptions())
    assert restored.category.tolist() == [-1, -1, -1]
    assert restored.recommend([old], 3) == recommender.recommend([old], 3)


def test_state_written_before_the_linear_model_is_read() -> None:
    recommender = Recommender(BlendOptions())
    recommender.learn(snapshots([(1, 1), (1, 2), (1, 3)]))
    packed = recommender.pack()
    fields = msgspec.msgpack.decode(packed[1:])
    fields[3] = fields[3][:3]
    tables, width = recommender.cooccurrence, recommender.options.cooccurrence.neighbours
    assert tables.neighbours.shape == (3, width)
    fields[3][0] = {
        "neighbours": pack_array(tables.neighbours.numpy()),
        "weights": pack_array(tables.weights.numpy()),
        "counts": fields[3][0]["counts"],
    }
    restored = Recommender.unpack(packed[:1] + msgspec.msgpack.encode(fields), BlendOptions())
    (query,) = snapshots([(2, 1)])
    assert restored.recommend([query], 3) == recommender.recommend([query], 3)


def test_categories_follow_the_catalogue_to_a_replica_and_through_a_restart() -> None:
    learner, replica = Recommender(BlendOptions()), Recommender(BlendOptions())
    changes = [CatalogueChange("i1", True, "shoes"), CatalogueChange("i2", False), CatalogueChange("i3", True, "hats")]
    replica.apply(unpack_delta(pack_delta(learner.learn([], changes))))
    replica.apply(unpack_delta(pack_delta(learner.learn([], [CatalogueChange("i1", True, "hats")]))))
    for one in (replica, Recommender.unpack(learner.pack(), BlendOptions())):
        names = [None if row < 0 else one.categories.ids[row] for row in one.category]
        assert names == ["hats", None, "hats"]


def test_popular_items_of_a_category_follow_an_item_that_moves_to_another() -> None:
    learner, replica = Recommender(BlendOptions()), Recommender(BlendOptions())
    events = snapshots([(0, 1), (1, 1), (2, 3)])
    for changes in ([("i1", "shoes"), ("i3", "hats")], [("i1", "hats")], [("i1", "hats")]):
        listed = [CatalogueChange(item, True, category) for item, category in changes]
        replica.apply(unpack_delta(pack_delta(learner.learn(events, listed))))
    for one in (learner, replica, Recommender.unpack(learner.pack(), BlendOptions())):
        best = {name: one.category_popularity.best[row] for row, name in enumerate(one.categories.ids[:2])}
        assert [one.index.ids[item] for item in best["hats"] if item >= 0] == ["i1", "i3"]
        assert (best["shoes"] < 0).all()


def test_out_of_order_event_is_put_in_its_place_and_a_duplicate_changes_nothing() -> None:
    profile = Profile()
    for event_id, seconds in (("a", 10), ("b", 30), ("c", 20)):
        event = Event(event_id, "u", "view", 1_600_000_000_000 + 1000 * seconds, event_id)
        assert apply_event(profile, event, OPTIONS).accepted
    assert profile.items == ["a", "c", "b"]
    packed = pack_profile(profile)
    assert not apply_event(profile, event, OPTIONS).accepted
    assert pack_profile(profile) == packed
    assert unpack_profile(packed) == profile
    with pytest.raises(ValueError, match="version 9"):
        unpack_profile(bytes((9,)) + packed[1:])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=30, max_size=150),
    st.integers(1, 20),
    st.sampled_from([8, 64]),
)
def test_forgotten_items_leave_the_others_as_they_were(pairs: list[tuple[int, int]], size: int, slots: int) -> None:
    options = replace(ALL_SOURCES, max_items=10, linear=replace(ALL_SOURCES.linear, slots=slots))
    learner, replica = Recommender(options), Recommender(options)
    events, newest = snapshots(pairs), {}
    for start in range(0, len(events), size):
        part = events[start : start + size]
        before = pair_weights(learner)
        delta = learner.learn(part, [CatalogueChange("i7", False, "c")] if start == 0 else [])
        replica.apply(unpack_delta(pack_delta(delta)))
        for event in part:
            newest[event.user_id] = event
        if delta.kept:
            # What was known of two items that stayed can only have grown.
            after = pair_weights(learner)
            stayed = set(learner.index.ids) - {item for event in part for item in event.history}
            assert {pair: w for pair, w in before.items() if set(pair) <= stayed} == {
                pair: w for pair, w in after.items() if set(pair) <= stayed
            }
    learner.learn([])
    replica = Recommender.unpack(learner.pack(), options)
    asked = list(newest.values())
    assert len(learner.index) <= 10
    assert learner.recommend(asked, 5) == replica.recommend(asked, 5)
    for ranked in learner.recommend(asked, 20):
        assert set(ranked.item_ids) <= set(learner.index.ids) - {"i7"}
    # An item that was unavailable still is, once it is seen again.
    learner.learn(snapshots([(9, 7)]))
    assert learner.blocked[learner.index.rows(["i7"])[0]]
    learner.learn([], [CatalogueChange("i7", True)])
    assert not learner.blocked.any()


def pair_weights(recommender: Recommender) -> dict[tuple[str, str], tuple[float, float]]:
    """Co-occurrence's statistics by item ids."""
    ids, model = recommender.index.ids, recommender.cooccurrence
    return {
        (ids[row], ids[other]): (float(model.weights[row, slot]), float(model.forward[row, slot]))
        for row in range(len(ids))
        for slot, other in enumerate(model.neighbours[row].tolist())
        if other >= 0
    }


def test_the_least_popular_are_forgotten_and_of_equals_the_oldest() -> None:
    options = replace(SOLVED_OFTEN, max_items=10)
    learner = Recommender(options)
    learner.learn([], [CatalogueChange(f"new{n}", True) for n in range(8)])
    learner.learn(snapshots([(user, item) for user in range(2) for item in range(4)]))
    assert len(learner.index) == 12
    delta = learner.learn(snapshots([(3, 0)]))
    assert delta.kept
    assert learner.index.ids == [f"new{n}" for n in range(3, 8)] + ["i0", "i1", "i2", "i3"]


def test_a_catalogue_beyond_the_dense_form_is_cut_before_anyone_takes_its_end() -> None:
    options = replace(SOLVED_OFTEN, max_items=20)
    learner, replica = Recommender(options), Recommender(options)
    for changes in ([CatalogueChange(f"i{n}", True) for n in range(25)], []):
        replica.apply(learner.learn(snapshots([(0, 1), (0, 2)]), changes))
    assert len(learner.index) == len(replica.index) == 18
    assert learner.linear._gram.sum() > 0


def test_lists_go_on_where_the_network_fails_and_both_sides_begin_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, replica = Recommender(WITH_SEQUENCE), Recommender(WITH_SEQUENCE)
    events = snapshots([(number % 5, number * 7 % 13) for number in range(60)])
    replica.apply(unpack_delta(pack_delta(learner.learn(events))))
    query, plain = events[-3:], Recommender(SOLVED_OFTEN)
    plain.learn(events)
    expected = plain.recommend(query, 20)
    blend = LearnedBlend(WITH_SEQUENCE.learned)
    # Were the network not there, its two features would be alike for all.
    blend.weights[0, 34:36] = 1
    assert replica.recommend(query, 20, blend, sequence=True) != replica.recommend(query, 20, blend, sequence=False)
    assert replica.recommend(query, 20, blend, sequence=False) == expected

    with monkeypatch.context() as broken:
        broken.setattr(SequenceModel, "query", lambda *_: 1 / 0)
        assert replica.recommend(query, 20, blend) == expected
    assert replica.sequence.failures == 1
    assert replica.recommend(query, 20, blend) != expected

    learner.sequence.model.items.vectors[:] = float("nan")
    delta = unpack_delta(pack_delta(learner.learn(events)))
    replica.apply(delta)
    assert (delta.sequence.anew, learner.sequence.failures) == (True, 1)
    assert (learner.sequence.model.updates, replica.recommend(query, 20, blend, sequence=True)) == (
        0,
        replica.recommend(query, 20, blend, sequence=False),
    )
    replica.apply(unpack_delta(pack_delta(learner.learn(events))))
    assert learner.sequence.model.updates > 0
    assert replica.recommend(query, 20, blend) == learner.recommend(query, 20, blend)


@pytest.mark.parametrize("whole_catalogue", [4096, 1])
def test_what_only_the_network_thinks_of_may_lead_a_list_and_says_so(whole_catalogue: int) -> None:
    narrow = replace(SOLVED_OFTEN.learned, candidates=1)
    sequence = replace(WITH_SEQUENCE.sequence, candidates=3)
    options = replace(WITH_SEQUENCE, learned=narrow, whole_catalogue=whole_catalogue, sequence=sequence)
    recommender, blend = Recommender(options), LearnedBlend(narrow)
    recommender.learn(snapshots([(number % 5, number * 7 % 13) for number in range(60)]))
    # Its share alone counts.
    blend.weights[0] = 0
    blend.weights[0, 34] = 1
    people = snapshots([(5 + n, n) for n in range(13)])
    without = recommender.recommend(people, 1, blend, sequence=False)
    led = [ranked.sources[0] == "sequence" for ranked in recommender.recommend(people, 1, blend)]
    assert any(led)
    assert not any("sequence" in ranked.sources for ranked in without)
    others = replace(options, sequence=replace(options.sequence, candidates=0))
    recommender.options, recommender.sequence.model.options = others, others.sequence
    assert not any("sequence" in ranked.sources for ranked in recommender.recommend(people, 1, blend))


@pytest.mark.parametrize("method", ["apply", "changed", "retain", "load"])
def test_wherever_the_network_fails_lists_go_on_and_it_is_begun_anew(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(WITH_SEQUENCE, max_items=20)
    learner, replica = Recommender(options), Recommender(options)
    events = snapshots([(number % 5, number * 7 % 13) for number in range(60)])
    replica.apply(learner.learn(events))
    assert replica.sequence.model._trained
    more = [CatalogueChange(f"i{n}", True) for n in range(30)]
    with monkeypatch.context() as broken:
        broken.setattr(SequenceModel, method, lambda *_: 1 / 0)
        if method == "load":
            learner = Recommender.unpack(learner.pack(), options)
            replica = Recommender.unpack(learner.pack(learning=False), options)
        else:
            replica.apply(learner.learn(events, more))
            replica.apply(learner.learn(events))
    assert replica.sequence.failures >= 1
    assert len(replica.recommend(events[-3:], 5)[0].item_ids) == 5
    # Where only the replica failed it waits for a whole model.
    if method == "apply":
        assert not replica.sequence.model._trained
        replica.apply(learner.learn(events))
        assert not replica.sequence.model._trained
        replica = Recommender.unpack(learner.pack(learning=False), options)
    for _ in range(3):
        replica.apply(learner.learn(events))
    assert learner.sequence.model.updates > 0
    assert replica.sequence.model._trained
    assert replica.recommend(events[-3:], 20) == learner.recommend(events[-3:], 20)


def test_scores_that_are_no_numbers_reach_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Recommender(WITH_SEQUENCE)
    events = snapshots([(number % 5, number * 7 % 13) for number in range(60)])
    learner.learn(events)
    expected = learner.recommend(events[-3:], 5, sequence=False)
    monkeypatch.setattr(
        SequenceModel, "score_candidates", lambda _, __, items, ___: np.full(items.shape, np.nan, np.float32)
    )
    assert learner.recommend(events[-3:], 5) == expected
    assert learner.sequence.failures == 1


def test_what_rules_may_ask_of_forgotten_items_is_kept_with_the_model() -> None:
    options = replace(SOLVED_OFTEN, max_items=20)
    learner = Recommender(options)
    packed = attributes_of(Item("i0", brand="Acme"))
    for changes in ([CatalogueChange(f"i{n}", True, attributes=packed) for n in range(25)], []):
        learner.learn(snapshots([(0, 1), (0, 2)]), changes)
    gone = set(learner.rules.forgotten)
    assert len(gone) == 7
    restored = Recommender.unpack(learner.pack(), options)
    back = min(gone)
    restored.learn([Snapshot("u", "e", 0, 0, [back], [1.0], 0, back)])
    assert restored.rules.known[restored.index.rows([back])[0]] == packed
    assert set(restored.rules.forgotten) == gone - {back}


def test_a_new_item_says_by_what_it_is_like_an_item_of_the_person() -> None:
    options = BlendOptions(content=ContentOptions(share=0.2, new_until=5))
    items = [Item(f"i{n}", title=f"No. {n}", brand="Oak" if n in (0, 9) else f"b{n}") for n in range(10)]
    learner = Recommender(options)
    learner.learn([], [change_of(item, options.content)[0] for item in items])
    events = snapshots([(0, 0)])
    learner.learn(events)
    (had,) = learner.recommend(events, 5)
    assert had.shared is not None
    said = dict(zip(had.item_ids, zip(had.because, had.shared, strict=True), strict=True))
    assert said["i9"] == ("i0", "brand:oak")
    assert Recommender(replace(options, explain=False)).recommend(events, 5)[0].shared is None


def test_what_belongs_to_a_persons_items_is_listed_and_says_why() -> None:
    changes = [CatalogueChange(f"i{n}", True, related=["i0", "later"] if n == 7 else None) for n in range(30)]
    options = BlendOptions(content=ContentOptions(share=0.0), whole_catalogue=0, popular=1)
    learner, replica = Recommender(options), Recommender(options)
    events = snapshots([(0, 0), (1, 1)])
    replica.apply(unpack_delta(pack_delta(learner.learn([], changes))))
    replica.apply(unpack_delta(pack_delta(learner.learn(events))))
    for one in (learner, replica, Recommender.unpack(learner.pack(), options)):
        had, other = one.recommend(events, 20)
        entries = list(zip(had.item_ids, had.sources, had.because, strict=True))
        assert ("i7", "relation", "i0") in entries
        assert "i7" not in other.item_ids
    learner.learn([], [CatalogueChange("i7", True, related=[])])
    assert "i7" not in learner.recommend(events[:1], 20)[0].item_ids
