"""Popularity in a context: each context's own items come first, drawn towards everybody's where little is known."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from model.batch import Batch, batch_of
from model.blend import BlendOptions, Recommender
from model.context_popularity import ContextPopularity, ContextPopularityOptions
from model.delta import CatalogueChange, pack_delta, unpack_delta
from model.learned_blend import LearnedBlend, LearnedBlendOptions
from model.popularity import Popularity, PopularityOptions
from model.snapshot import Snapshot
from tests.streams import snapshots

pytestmark = pytest.mark.unit
OPTIONS = ContextPopularityOptions(("country", "device"), contexts=2, items=3, prior=4.0)
DAYS = PopularityOptions(half_life_ms=1000.0)
BY_COUNTRY = BlendOptions(
    context=ContextPopularityOptions(("country",)), learned=LearnedBlendOptions(candidates=1, own_items=1)
)


def taken(*items: int, at: int = 1000) -> Batch:
    batch = batch_of(np.array(items, np.int64)[:, None])
    return msgspec.structs.replace(batch, timestamps=np.full(len(items), at))


def model() -> ContextPopularity:
    made = ContextPopularity(OPTIONS, DAYS)
    made.resize(5)
    return made


def asking(country: str | None) -> Snapshot:
    """Somebody whose only item nobody else has."""
    properties: dict[str, str | bool | float] = {} if country is None else {"country": country}
    return Snapshot("new", "e", 1_600_000_900_000, 0, ["i0"], [1.0], 0, "i0", profile_version=1, properties=properties)


def test_a_context_is_what_the_properties_say_together() -> None:
    told: list[dict[str, str | bool | float]]
    told = [{"country": "de", "device": "phone"}, {"device": "phone", "other": 1.0}, {"other": "x"}, {}]
    people = [msgspec.structs.replace(asking(None), properties=properties) for properties in told]
    assert model().of(people) == ["de|phone", "|phone", "", ""]
    assert ContextPopularity(ContextPopularityOptions(), DAYS).of(people) == [""] * 4


def test_each_context_has_its_own_best_and_there_are_so_many_contexts() -> None:
    context = model()
    deltas = context.learn(taken(1, 2, 2, 3, 4, 4), ["a", "b", "a", "a", "", "c"])
    assert list(deltas) == ["", "a", "b"]
    assert context.everybody.sums.tolist() == [0, 1, 2, 1, 2]
    assert context.near(["b", "a", "", "c"]).tolist() == [[2, -1, -1], [1, 2, 3], [-1] * 3, [-1] * 3]
    context.learn(taken(3), ["a"])
    assert context.near(["a"]).tolist() == [[3, 1, 2]]
    # Who takes it again was counted before.
    context.learn(msgspec.structs.replace(taken(2, 2), repeated=np.array([True, True])), ["a", "a"])
    assert (context.near(["a"]).tolist(), context.everybody.sums[2]) == ([[3, 1, 2]], 2)
    assert model().near(["a"]).shape == (1, 0)


def test_what_is_popular_in_a_context_is_drawn_towards_what_everybody_takes() -> None:
    context = model()
    # Three and one of the four in "a", a half-life ago.
    context.learn(taken(1, 1, 1, 2, *[4] * 6), [*["a"] * 4, *[""] * 6])
    candidates = np.array([[1, 2, 4, -1], [1, 2, 4, -1], [1, 2, 4, -1]])
    scores = context.score_candidates(["a", "", "b"], np.full(3, 2000), candidates)
    share = 1.5 / (1.5 + 4)
    expected = [share * own + (1 - share) * all_of for own, all_of in ((1, 0.5), (1 / 3, 1 / 6), (0, 1))]
    assert scores[0] == pytest.approx([*expected, 0], abs=1e-6)
    long_ago = context.score_candidates(["a"], np.array([-(10**13)]), candidates[:1])
    assert long_ago[0, 0] == pytest.approx((3 + 4 * 0.5) / 7)
    assert scores[1:] == pytest.approx(np.array([[0.5, 1 / 6, 1, 0]] * 2), abs=1e-6)


def test_a_context_is_well_known_once_it_counts_as_much_as_everybody() -> None:
    context = model()
    people = [msgspec.structs.replace(asking(name), event_timestamp=1000) for name in ("a", "b", "a", None)]
    assert context.well_known(people) == []
    context.learn(taken(1, 1, 1, 2, 1), ["a|", "a|", "a|", "b|", "|phone"])
    assert context.well_known(people) == []
    context.learn(taken(1), ["a|"])
    assert context.well_known(people) == [{"country": "a"}]
    # A half-life later too little of it counts.
    assert context.well_known([msgspec.structs.replace(people[0], event_timestamp=2000)]) == []


def test_a_replica_follows_and_state_comes_back_unless_other_properties_are_asked_for() -> None:
    context, replica, restored = model(), model(), model()
    for start in range(0, 30, 4):
        items = [n * n % 5 for n in range(start, start + 4)]
        replica.apply(context.learn(taken(*items, at=1000 + start), [f"{n % 3}" for n in range(4)]))
    restored.load(context.snapshot(), Popularity(DAYS, torch.device("cpu")))
    for other in (replica, restored):
        assert list(other.popularity) == list(context.popularity) == ["", "0", "1"]
        np.testing.assert_array_equal(other.near(["0", "1"]), context.near(["0", "1"]))
        for name, popularity in context.popularity.items():
            np.testing.assert_array_equal(other.popularity[name].sums, popularity.sums)
    elsewhere = ContextPopularity(replace(OPTIONS, properties=("country",)), DAYS)
    elsewhere.load(context.snapshot(), Popularity(DAYS, torch.device("cpu")))
    assert list(elsewhere.popularity) == [""]
    np.testing.assert_array_equal(elsewhere.everybody.sums, context.everybody.sums)


def test_items_that_are_forgotten_leave_their_rows() -> None:
    context = model()
    context.learn(taken(0, 2, 2, 3, 4, 4, 4), ["a"] * 7)
    context.retain(np.array([2, 3]))
    assert context.near(["a"]).tolist() == [[0, 1, -1]]
    assert context.popularity["a"].sums.tolist() == [2, 1]


def test_a_newcomer_is_listed_what_their_context_takes_and_the_order_learns_to_put_it_first() -> None:
    learner, replica, blend = Recommender(BY_COUNTRY), Recommender(BY_COUNTRY), LearnedBlend(BY_COUNTRY.learned)
    # Everybody has item 1, those of c0 have items 5 and 6, some of c1 item 3 and some of c2 item 4.
    own = {0: (5, 6), 1: (3,), 2: (4,)}
    pairs = [(user, item) for user in range(30) for item in (1, *(own[user % 3] if user % 3 == 0 or user < 15 else ()))]
    replica.apply(unpack_delta(pack_delta(learner.learn([*snapshots(pairs), asking(None)]))))
    for one in (learner, replica, Recommender.unpack(learner.pack(), BY_COUNTRY)):
        for ranked in one.recommend([asking("c1"), asking(None)], 2):
            assert ranked.item_ids[0] == "i1"
            assert ranked.item_ids[1] in ("i5", "i6")
    for number in range(60):
        country = 1 + number % 2
        person = msgspec.structs.replace(asking(f"c{country}"), user_id=f"p{number}")
        replica.recommend([person], 2, blend)
        history = [f"i{2 + country}", *person.history]
        replica.feedback(msgspec.structs.replace(person, history=history, weights=[1.0, 1.0]), blend)
    listed = replica.recommend([asking("c1"), asking("c2")], 2, blend)
    assert [ranked.item_ids[0] for ranked in listed] == ["i3", "i4"]


def test_a_recommender_packed_before_people_were_counted_begins_with_its_interactions() -> None:
    before = Recommender(BlendOptions())
    before.learn([], [CatalogueChange("i3", True, "c")])
    before.learn(snapshots([(1, 3), (1, 3), (2, 4)]))
    packed = before.pack()
    fields = msgspec.msgpack.decode(packed[1:])[:-1]
    restored = Recommender.unpack(packed[:1] + msgspec.msgpack.encode(fields), BY_COUNTRY)
    assert list(restored.context.popularity) == [""]
    assert restored.context.everybody.sums.tolist() == pytest.approx([2, 1], abs=1e-3)
    restored.learn(snapshots([(1, 3)]))
    assert restored.context.popularity["c1"].sums.tolist() == pytest.approx([1, 0], abs=1e-3)
    assert restored.context.everybody.sums[0] == pytest.approx(3, abs=1e-3)
    assert restored.popular_in("c", 3)[0] == ["i3"]
