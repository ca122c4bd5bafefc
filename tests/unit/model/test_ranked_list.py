"""Where a list's entries come from, and what led to them."""

import numpy as np
import pytest

from model.candidates import Candidates
from model.ranked_list import origins_of, ranked_lists

pytestmark = pytest.mark.unit
NAMES = ["pairs", "factors", "popularity", "history", "content", "relation", "sequence", "new"]
IDS = [f"i{n}" for n in range(20)]
# Columns 0: of the history, 1: related, 2 and 3: looked for by the sequence model, 4: new, 5 to 9: by the fixed blend.
ITEMS = np.array([[10, 11, 12, 13, 14, 15, 16, 17, 18, -1]])
LIKELIEST, OTHERS = slice(2, 4), 5


def candidates() -> Candidates:
    shares = np.zeros((3, 1, 10), np.float32)
    shares[0, 0] = [0.9, 0, 0.1, 0.7, 0, 0.8, 0.2, 0, 0, 0]
    shares[1, 0] = [0, 0, 0, 0, 0, 0, 0.9, 0, 0, 0]
    shares[2, 0, 8] = 0.3
    places = np.full((1, 10), -1)
    places[0, 0] = 0
    return Candidates(ITEMS.copy(), places, shares)


def signals() -> np.ndarray:
    """Content speaks for columns 5 and 7, relations for 1."""
    found = np.zeros((6, 1, 10), np.float32)
    found[2, 0, [5, 7]] = found[5, 0, 1] = 1
    return found


def test_each_entry_says_which_source_it_comes_from() -> None:
    columns = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, -1]])
    propensities = np.zeros((1, 10), np.float32)
    propensities[0, 4] = 0.25
    origins = origins_of(candidates(), (1.0, 0.5), signals(), LIKELIEST, OTHERS, columns, propensities, explain=True)
    assert origins.items.tolist() == ITEMS.tolist()
    # The row has less than the blend's choice would need: what the sequence model looked for is above the least of it.
    assert [NAMES[source] for source in origins.sources[0][:9]] == [
        "history", "relation", "pairs", "pairs", "new", "pairs", "factors", "content", "popularity"
    ]  # fmt: skip
    # Pairs and factors are explained by pairs, content and what is new by content, relations by themselves.
    assert origins.asked[0].tolist() == [[-1, -1, 12, 13, -1, 15, 16, -1, -1, -1]]
    assert origins.asked[1].tolist() == [[-1, -1, -1, -1, 14, -1, -1, 17, -1, -1]]
    assert origins.asked[2].tolist() == [[-1, 11, -1, -1, -1, -1, -1, -1, -1, -1]]


def test_of_what_the_blend_has_below_its_own_choice_the_sequence_model_alone_has_thought() -> None:
    given = candidates()
    given.items[0, 9] = 19
    given.shares[0, 0, 5:] = [0.8, 0.2, 0.4, 0.3, 0.3]
    columns, nothing = np.array([[2, 3]]), np.zeros((1, 2), np.float32)
    origins = origins_of(given, (1.0, 0.5), signals(), LIKELIEST, OTHERS, columns, nothing, explain=True)
    assert [NAMES[source] for source in origins.sources[0]] == ["sequence", "pairs"]


def test_nothing_is_asked_for_where_lists_are_not_explained() -> None:
    columns, nothing = np.array([[1, 5, 7]]), np.zeros((1, 3), np.float32)
    origins = origins_of(candidates(), (1.0, 0.5), signals(), LIKELIEST, OTHERS, columns, nothing, explain=False)
    assert (origins.asked == -1).all()


def test_lists_are_cut_where_their_entries_end() -> None:
    given = candidates()
    two = Candidates(*(np.concatenate([array, array], axis=1 if array.ndim == 3 else 0) for array in given))
    told = np.concatenate([signals(), signals()], axis=1)
    columns = np.array([[5, 7, -1], [4, -1, -1]])
    chances = np.array([[0.1234567, 0.5, 0], [0.25, 0, 0]], np.float32)
    propensities = np.array([[0, 0, 0], [0.125, 0, 0]], np.float32)
    origins = origins_of(two, (1.0, 0.5), told, LIKELIEST, OTHERS, columns, propensities, explain=True)
    leading, histories = np.array([[1, 0, -1], [-1, -1, -1]]), np.array([[3, 4], [5, 6]])
    first, second = ranked_lists(
        origins, leading, histories, chances, propensities, NAMES, IDS, lambda item, other: f"{item} {other}"
    )
    assert first.item_ids == ["i15", "i17"]
    assert first.scores == [0.12346, 0.5]
    assert first.sources == ["pairs", "content"]
    assert first.because == ["i4", "i3"]
    assert first.propensities == [None, None]
    assert first.shared == [None, "17 3"]
    assert (second.item_ids, second.because, second.propensities, second.shared) == (["i14"], [None], [0.125], None)
