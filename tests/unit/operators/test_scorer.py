"""The scorer's memory of what it has sent: which place of a list led to an event, and which were seen."""

from collections import OrderedDict

import pytest

from model.blend import BlendOptions
from model.learned_blend import LearnedBlend
from model.snapshot import Snapshot
from operators.scorer import ScorerFunction

pytestmark = pytest.mark.unit


def scorer_of(send_unchanged: bool = False, remembered: int = 10) -> ScorerFunction:
    scorer = ScorerFunction(BlendOptions(), "events", 3, send_unchanged, remembered, 0)
    scorer._sent, scorer._segments, scorer._run, scorer._lists_made = OrderedDict(), OrderedDict(), "run", 0
    return scorer


def seen(item: str, list_id: str | None, user: str = "u") -> Snapshot:
    return Snapshot(user, "e", 0, 0, [], [], item_id=item, list_id=list_id, impression=True)


def test_an_impression_counts_once_for_each_place_of_the_list_that_the_person_has() -> None:
    scorer, blend = scorer_of(), LearnedBlend(BlendOptions().learned)
    first = scorer._changed("u", ["a", "b", "c"])
    assert first is not None
    for item, list_id in (("b", first), ("b", first), ("a", first), ("x", first), ("a", "another"), ("c", None)):
        scorer._see(seen(item, list_id), blend)
    assert (blend.exposure.lists, blend.exposure.seen[:3].tolist()) == (1, [1, 1, 0])
    second = scorer._changed("u", ["c", "a", "b"])
    scorer._see(seen("a", first), blend)
    scorer._see(seen("c", second), blend)
    scorer._see(seen("c", second, "somebody"), blend)
    assert (blend.exposure.lists, blend.exposure.seen[:3].tolist()) == (2, [2, 1, 0])
    assert scorer._place(seen("b", second)) == 2


def test_a_list_is_new_where_it_has_changed_and_keeps_its_id_where_not() -> None:
    scorer = scorer_of(remembered=1)
    first = scorer._changed("u", ["a"])
    assert first
    assert scorer._changed("u", ["a"]) is None
    assert scorer._place(seen("a", first)) == 0
    # An empty list is sent where it takes another's place, and once.
    assert scorer._changed("u", []) not in (None, first)
    assert scorer._changed("u", []) is None
    assert scorer._changed("nobody", []) is None
    first = scorer._changed("u", ["a"])
    second = scorer._changed("u", ["b"])
    assert second not in (None, first)
    # Whose list was sent longest ago is forgotten first.
    scorer._changed("other", ["a"])
    assert scorer._place(seen("b", second)) == -1
    always = scorer_of(send_unchanged=True)
    assert always._changed("u", ["a"]) != always._changed("u", ["a"]) is not None


def test_a_segment_is_told_when_it_changes() -> None:
    scorer = scorer_of(remembered=2)
    told = [scorer._segment_changed(*said) for said in (("u", 0), ("u", 0), ("u", 1), ("v", 1), ("w", 0), ("u", 1))]
    # Of three people the one told of longest ago is forgotten.
    assert told == [True, False, True, True, True, True]
