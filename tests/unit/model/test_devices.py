"""A scorer's lists are the same by numba on a CPU, by torch there, and by torch on a GPU where there is one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import devices
from model.blend import BlendOptions, Recommender
from model.content import ContentOptions
from model.delta import Steering, change_of, pack_delta, unpack_delta
from model.learned_blend import LearnedBlend
from model.linear_item_model import LinearItemModelOptions
from model.matrix_factorization import MatrixFactorizationOptions
from model.ranked_list import RankedList
from model.sequence_model import SequenceOptions
from model.snapshot import Snapshot
from model.user_neighbours import UserNeighboursOptions
from model.user_segments import UserSegmentsOptions
from schema.item import Item
from tests.devices import DEVICES
from tests.streams import snapshots

pytestmark = pytest.mark.unit
K = 20
SOLVED_OFTEN = BlendOptions(
    linear=LinearItemModelOptions(slots=8, regularization=1.0, first=10, step=8, item_first=2, step_items=3),
    factorization=MatrixFactorizationOptions(step=10),
    content=ContentOptions(embeddings=(("look", 2),)),
)
CATALOGUE = [
    Item(
        f"i{n}",
        available=n != 3,
        title=f"kind {n % 2}",
        category=[f"c{n % 3}"],
        price=1.0 + n,
        embeddings={"look": [1.0, n]},
        relations={"accessory_of": [f"i{n + 1}"]},
    )
    for n in range(9)
]
RULES = [
    Steering("rule", name, json.dumps({"rule_id": name, **fields}).encode())
    for name, fields in {
        "dear": {"action": "filter", "items": "item.price >= 8.0"},
        "second": {"action": "pin", "item_ids": ["i5"], "position": 2},
        "few": {"action": "boost", "items": "item.category[0] == 'c1'", "amount": -0.5},
    }.items()
]
OF_ALL_KINDS = {
    "sparse": SOLVED_OFTEN,
    "dense": replace(SOLVED_OFTEN, linear=replace(SOLVED_OFTEN.linear, slots=64)),
    "any time": replace(SOLVED_OFTEN, horizon="any"),
    "people": replace(
        SOLVED_OFTEN, user_neighbours=UserNeighboursOptions(3), user_segments=UserSegmentsOptions(2, after=5)
    ),
    "spread out": replace(SOLVED_OFTEN, diversity=0.4),
    "forgetful": replace(SOLVED_OFTEN, max_items=10),
    **{
        network: replace(
            SOLVED_OFTEN,
            sequence=SequenceOptions(
                network=network, dimensions=8, history=8, reservoir=8, step=8, updates=1, learning_rate=0.02
            ),
        )
        for network in ("transformer", "gru")
    },
}


@contextmanager
def by_torch() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "read_by_numba", lambda _: False)
        yield


def scores(ranked: RankedList) -> dict[str, float]:
    return dict(zip(ranked.item_ids, ranked.scores, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", OF_ALL_KINDS)
@settings(max_examples=12, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 14)), min_size=1, max_size=120),
    size=st.integers(1, 40),
    ruled=st.booleans(),
)
def test_lists_are_the_same(
    device: str,
    kind: str,
    pairs: list[tuple[int, int]],
    size: int,
    ruled: bool,
) -> None:
    options, events = OF_ALL_KINDS[kind], snapshots(pairs)
    learner, follower = Recommender(options), Recommender(replace(options, device=device))
    changes = [change_of(item, options.content)[0] for item in CATALOGUE]
    for start in range(0, len(events), size):
        first = start == 0
        delta = learner.learn(
            events[start : start + size], changes if first else [], steering=RULES if first and ruled else []
        )
        follower.apply(unpack_delta(pack_delta(delta)))
    begun = Recommender.unpack(learner.pack(learning=False), replace(options, device=device))
    newest = list({event.user_id: event for event in events}.values())
    # Users whose feedback has taught the order, and one that nobody knows.
    blend = LearnedBlend(options.learned)
    for event in events:
        learner.feedback(event, blend)
        learner.recommend([event], K, blend)
    asked = [*newest, Snapshot("nobody", "e", newest[-1].event_timestamp, 0, [], [])]
    taught = [LearnedBlend.unpack(blend.pack(), options.learned) for _ in range(3)]
    expected = learner.recommend(asked, K, taught[0])
    for recommender, order in ((follower, taught[1]), (begun, taught[2])):
        with by_torch():
            found = recommender.recommend(asked, K, order)
            alone = recommender.recommend(asked[:1], K, LearnedBlend.unpack(blend.pack(), options.learned))
        assert scores(alone[0]) == pytest.approx(scores(found[0]), abs=1e-3)
        for one, other in zip(found, expected, strict=True):
            assert one.segment == other.segment
            assert len(set(one.item_ids)) == len(one.item_ids) == len(other.item_ids)
            assert scores(one) == pytest.approx(scores(other), abs=1e-3)
            # In the same order, but for equals.
            assert one.scores == pytest.approx(other.scores, abs=1e-3)
            assert not ruled or not {"i7", "i8"} & set(one.item_ids)
