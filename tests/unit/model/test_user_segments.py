"""Segments: those of people who are alike, the same however vectors come, and they come back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.user_segments import UserSegments, UserSegmentsOptions

pytestmark = pytest.mark.unit
OPTIONS = UserSegmentsOptions(segments=3, after=4)


def people(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of people who are each near to one of three directions, and to which."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, count)
    vectors = np.eye(3, 5)[kinds] * random.uniform(0.5, 9, (count, 1)) + random.normal(0, 0.15, (count, 5))
    return vectors.astype(np.float32), kinds


def test_people_who_are_alike_are_of_one_segment() -> None:
    segments = UserSegments(OPTIONS, 5)
    # One of each kind first: a centre begins with what it meets.
    segments.learn(np.concatenate([people(4)[0], np.eye(3, 5, dtype=np.float32), people(300)[0]]))
    vectors, kinds = people(200, seed=2)
    found = segments.of(vectors)
    assert [len(set(found[kinds == kind].tolist())) for kind in range(3)] == [1, 1, 1]
    assert set(found.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(np.linalg.norm(segments.centres, axis=1), 1, atol=1e-5)
    assert segments.of(np.zeros((1, 5), np.float32)).tolist() == [-1]


def test_until_enough_is_known_nobody_is_of_any() -> None:
    segments = UserSegments(OPTIONS, 5)
    assert segments.learn(people(4)[0]) == b""
    assert segments.of(people(2)[0]).tolist() == [-1, -1]
    assert UserSegments(replace(OPTIONS, segments=0), 5).learn(people(50)[0]) == b""


@given(st.lists(st.integers(0, 60), max_size=4))
def test_wherever_vectors_are_cut_a_replica_and_what_was_packed_agree(cuts: list[int]) -> None:
    vectors, _ = people(60)
    whole, cut, replica = (UserSegments(OPTIONS, 5) for _ in range(3))
    whole.learn(vectors)
    for part in np.split(vectors, sorted(cuts)):
        replica.apply(cut.learn(part))
        restored = UserSegments(OPTIONS, 5)
        restored.load(cut.snapshot())
        cut = restored
    for other in (cut, replica):
        np.testing.assert_array_equal(other.centres, whole.centres)
    larger = UserSegments(replace(OPTIONS, segments=4), 5)
    larger.load(whole.snapshot())
    assert not larger.centres.any()
