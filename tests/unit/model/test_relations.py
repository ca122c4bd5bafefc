"""Relations: they lead from what a person has to what belongs to it, are replaced as a whole, and need no order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.item_index import ItemIndex
from model.relations import Relations, RelationsOptions

pytestmark = pytest.mark.unit
PHONE, CASE, CABLE, LAMP = range(4)
INDEX = ItemIndex(["phone", "case", "cable", "lamp", "gone"])
BLOCKED = [False, False, False, False, True]


def asked(relations: Relations, *histories: list[int]) -> tuple[list[list[int]], np.ndarray]:
    """What is related to each history, and how much each of the four items is."""
    items = np.full((len(histories), 4), -1)
    for n, history in enumerate(histories):
        items[n, : len(history)] = history
    found = relations.near(items, np.ones(items.shape, np.float32), INDEX, np.array(BLOCKED))
    every = np.tile(np.arange(4), (len(items), 1))
    rows = [[item for item in row if item >= 0] for row in found.items.tolist()]
    scores = found.scores_of(every)
    causes = found.causes_of(every)
    assert ((scores > 0) == (causes >= 0)).all()
    return rows, scores


def test_who_has_an_item_is_led_to_what_belongs_to_it_and_not_the_other_way_round() -> None:
    relations = Relations(RelationsOptions(decay=1.0))
    relations.follow("case", ["phone", "not known yet"])
    relations.follow("gone", ["phone"])
    relations.follow("not known either", ["phone"])
    relations.follow("cable", ["phone", "lamp", "phone"])
    rows, scores = asked(relations, [PHONE], [CASE], [LAMP, PHONE], [], [PHONE, CASE])
    assert rows == [[CASE, CABLE], [], [CABLE, CASE], [], [CABLE]]
    assert scores.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0.5, 1.5, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_a_new_message_replaces_what_was_said_before() -> None:
    relations = Relations(RelationsOptions())
    relations.follow("case", ["phone"])
    relations.follow("case", ["lamp"])
    assert asked(relations, [PHONE], [LAMP])[0] == [[], [CASE]]
    relations.follow("case", [])
    assert (relations.named, relations._following) == ({}, {})
    assert asked(relations, [LAMP])[0] == [[]]


def test_what_is_forgotten_leads_nowhere() -> None:
    relations = Relations(RelationsOptions())
    relations.follow("case", ["phone"])
    relations.follow("mast", ["phone"])
    assert asked(relations, [PHONE])[0] == [[CASE]]
    relations.retain(INDEX)
    assert relations.named == {"case": ["phone"]}


def test_what_many_belong_to_costs_no_more_than_what_some_do() -> None:
    options = RelationsOptions(items=3, looked_at=5)
    relations, index = Relations(options), ItemIndex([f"i{n}" for n in range(100)])
    for n in range(1, 100):
        relations.follow(f"i{n}", ["i0"])
    blocked = np.arange(100) < 3
    found = relations.near(np.array([[0]]), np.ones((1, 1), np.float32), index, blocked)
    assert found.items.tolist() == [[3, 4, 5]]


@given(st.lists(st.tuples(st.sampled_from(INDEX.ids), st.lists(st.sampled_from(INDEX.ids), max_size=4)), max_size=12))
def test_the_last_message_of_each_item_counts(messages: list[tuple[str, list[str]]]) -> None:
    relations, fresh = Relations(RelationsOptions()), Relations(RelationsOptions())
    for item, others in messages:
        relations.follow(item, others)
    for item, others in dict(messages).items():
        fresh.follow(item, others)
    histories = [[one] for one in range(4)] + [[3, 1, 0, 2]]
    expected, scores = asked(fresh, *histories)
    found, others = asked(relations, *histories)
    assert [set(row) for row in found] == [set(row) for row in expected]
    np.testing.assert_allclose(others, scores)


def test_pairs_are_those_whose_both_items_are_known() -> None:
    relations = Relations(RelationsOptions())
    assert relations.pairs(INDEX).shape == (0, 2)
    relations.follow("case", ["phone", "nobody"])
    relations.follow("other", ["phone"])
    relations.follow("cable", ["phone", "lamp"])
    assert relations.pairs(INDEX).tolist() == [[CASE, PHONE], [CABLE, PHONE], [CABLE, LAMP]]
