"""Content: what goes with what by its words, the newest first where nothing does, and its state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.arrays import unpack_array
from model.content import TOKENS, Content, ContentOptions, embedding_of, texts_of, tokens_of
from model.delta import change_of
from schema.errors import MessageError
from schema.item import Item

pytestmark = pytest.mark.unit
ITEMS = [
    Item("runner", title="Red running shoe", category=["shoes", "running"], brand="Fleet", price=90.0),
    Item("trail", title="Trail running shoe", category=["shoes", "running"], brand="Fleet", price=110.0),
    Item("boot", title="Winter boot", category=["shoes", "boots"], brand="Fur", price=150.0),
    Item("lamp", title="Desk lamp", category=["home"], price=20.0),
    Item("pan", title="Iron pan", description="A pan of iron for the desk of a cook.", category=["home"]),
]
ALL = np.arange(len(ITEMS))
NOTHING = np.empty(0, np.int64)


def learned(items: list[Item] = ITEMS, **options: int) -> Content:
    content = Content(ContentOptions(**options))
    content.resize(len(items))
    content.follow(range(len(items)), map(tokens_of, items), [b""] * len(items))
    return content


def history(*items: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([items], np.int64), np.ones((1, len(items)), np.float32)


def cosine(one: dict[int, float], other: dict[int, float]) -> float:
    product = sum(weight * other.get(token, 0.0) for token, weight in one.items())
    lengths = [sum(weight**2 for weight in bag.values()) for bag in (one, other)]
    return product / max((lengths[0] * lengths[1]) ** 0.5, 1e-9)


def test_tokens_are_one_each_and_bounded_the_category_first() -> None:
    tokens = np.frombuffer(tokens_of(ITEMS[0]), np.uint16)
    assert len(tokens) == len(set(tokens.tolist())) == 7
    assert (
        tokens[:2].tolist() == np.frombuffer(tokens_of(Item("x", category=["Shoes ", "running"])), np.uint16).tolist()
    )
    long = tokens_of(Item("x", title=" ".join(map(str, range(100))), category=["shoes"]))
    assert len(long) == 2 * TOKENS
    assert long[:2] == tokens[:1].tobytes()
    assert tokens_of(Item("x")) == b""


def test_items_of_a_month_have_more_in_common_than_those_of_a_year() -> None:
    created = [1_704_067_200_000, 1_706_659_200_000, 1_709_251_200_000, 1_735_689_600_000]
    january, also, march, next_year = (set(texts_of(Item("x", created_at=at))) for at in created)
    assert january == also == {"created:2024", "created:2024-01"}
    assert march & january == {"created:2024"}
    assert not next_year & january
    # A film may be older than the clock's zero.
    assert set(texts_of(Item("x", created_at=-1_514_764_800_000))) == {"created:1922", "created:1922-01"}


def test_a_price_says_something_within_its_category_and_roughly() -> None:
    def price(value: float, category: str) -> bytes:
        return tokens_of(Item("x", price=value, category=[category]))[-2:]

    assert price(100, "shoes") == price(105, "shoes") != price(200, "shoes")
    assert price(100, "shoes") != price(100, "home")


def test_scores_are_cosines_of_bags_weighted_by_inverse_document_frequency() -> None:
    content = learned()
    bags = [np.frombuffer(tokens_of(item), np.uint16).tolist() for item in ITEMS]
    frequency = {token: sum(token in bag for bag in bags) for bag in bags for token in bag}
    weight = {token: np.log(1 + 8 / (1 + count)) for token, count in frequency.items()}
    vectors = [{token: weight[token] for token in bag} for bag in bags]
    lengths = [sum(value**2 for value in vector.values()) ** 0.5 for vector in vectors]
    person: dict[int, float] = {}
    for place, item in enumerate((2, 0)):
        for token, value in vectors[item].items():
            person[token] = person.get(token, 0.0) + value / lengths[item] * (1 + place) ** -0.5
    found = content.score_candidates(*history(2, 0), ALL[None])[0]
    assert found == pytest.approx([cosine(person, vector) for vector in vectors], abs=1e-5)
    # Nothing of one list stays for the next.
    assert content.score_candidates(*history(2, 0), ALL[None])[0].tolist() == found.tolist()
    assert not content.score_candidates(*history(-1), ALL[None]).any()
    assert not content.score_candidates(*history(0), np.array([[-1]])).any()


def test_new_are_the_newest_of_the_catalogue_that_few_took_and_none_forbids() -> None:
    content = learned(pool=3, new_until=5)
    blocked = np.zeros(len(ITEMS), np.bool_)
    assert content.pool(np.array([0, 0, 0, 0, 5], np.float32).__getitem__, blocked).tolist() == [3, 2, 1]
    blocked[3] = True
    assert content.pool(np.zeros(5, np.float32).__getitem__, blocked).tolist() == [4, 2, 1]


def test_a_person_meets_the_new_items_that_go_with_theirs_but_none_of_their_own_nor_an_excluded_one() -> None:
    content = learned(new_items=2)
    items, weights = np.array([[0, -1], [-1, -1], [4, 3]]), np.ones((3, 2), np.float32)
    found = content.new_items(items, weights, np.array([2, 1]), np.array([0, 1, 1, 2]), ALL[::-1].copy())
    assert found.items[0].tolist()[0] == 1
    assert 2 not in found.items[0]
    # Nothing is known of the second person: the newest.
    assert found.items[1].tolist() == [4, 3]
    assert found.scores[1].tolist() == [0, 0]
    # Nothing that is left has a word of theirs.
    assert found.items[2].tolist() == [-1, -1]
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_without_new_items_there_are_none() -> None:
    found = learned().new_items(*history(0), NOTHING, np.array([0, 0]), NOTHING)
    assert found.items.shape == found.scores.shape == (1, 0)


LOOKS = ContentOptions(embeddings=(("look", 2),))


def looks(*vectors: tuple[float, float]) -> Content:
    content = Content(LOOKS)
    content.resize(len(vectors) + 1)
    items = [Item("x", embeddings={"look": list(vector)}) for vector in vectors]
    content.follow(range(len(vectors)), [b""] * len(vectors), (embedding_of(item, LOOKS) for item in items))
    return content


def test_embeddings_say_by_their_angle_what_goes_with_a_person() -> None:
    content = looks((3, 0), (1, 1), (0, 2), (-1, 0))
    asked = np.array([[0, 1, 2, 3, 4, -1]])
    root = 2**-0.5
    assert content.score_embeddings(*history(0), asked)[0] == pytest.approx([1, root, 0, 0, 0, 0], abs=1e-6)
    both = np.array([1 + root / 2**0.5, root / 2**0.5])
    both /= np.linalg.norm(both)
    expected = [both[0], both.sum() * root, both[1], 0, 0, 0]
    assert content.score_embeddings(*history(0, 1), asked)[0] == pytest.approx(expected, abs=1e-6)
    assert not content.score_embeddings(*history(4), asked).any()


def test_new_items_are_found_by_embedding_where_there_are_no_words_and_state_keeps_it() -> None:
    content = looks((3, 0), (1, 1), (0, 2), (-1, 0))
    restored = Content(LOOKS)
    restored.load(content.snapshot())
    restored.retain(np.array([0, 1, 2]))
    for one, size in ((content, 5), (restored, 3)):
        pool = one.pool(np.zeros(size, np.float32).__getitem__, np.zeros(size, np.bool_))
        found = one.new_items(*history(2), NOTHING, np.array([0, 0]), pool)
        assert found.items[0][0] == 1
        assert found.scores[0][0] == pytest.approx(2**-0.5, abs=1e-6)
    # Who is known by an embedding gets nothing that has none.
    assert content.new_items(*history(0), NOTHING, np.array([0, 0]), np.array([4, 2])).items.tolist() == [[-1, -1]]
    assert content.new_items(*history(4), NOTHING, np.array([0, 0]), np.array([3, 2])).items.tolist() == [[3, 2]]
    # Another is asked for: what there was says nothing, whether it comes from the state or from a log.
    for asked_for in ((("look", 3),), (("sound", 2),), (("look", 1), ("sound", 1)), ()):
        other = Content(ContentOptions(embeddings=asked_for))
        other.load(content.snapshot())
        assert not other.score_embeddings(*history(0), ALL[None]).any()
    other.follow([0], [b""], [embedding_of(Item("x", embeddings={"look": [1.0, 2.0]}), LOOKS)])
    assert not other.score_embeddings(*history(0), ALL[None]).any()


def test_what_leads_to_an_item_is_what_it_has_most_in_common_with() -> None:
    content = learned(recent=3)
    listed = np.array([[1, 4, 2, -1]])
    assert content.led_by(np.array([[3, 2, 0, 1]]), listed).tolist() == [[2, 0, 1, -1]]
    assert content.led_by(np.array([[-1, 3]]), listed).tolist() == [[-1, 1, -1, -1]]
    assert looks((3, 0), (1, 1), (0, 2)).led_by(np.array([[0, 2]]), np.array([[1, 3]])).tolist() == [[0, -1]]


def test_what_two_items_share_is_what_says_most() -> None:
    content = learned()

    def shared(one: Item, other: Item) -> str | None:
        return content.shared(texts_of(one), texts_of(other))

    runner, trail, boot, lamp, pan = ITEMS
    # "running" is a word of the trail shoe too, in half as many items as the category of shoes.
    assert shared(runner, trail) in {"brand:fleet", "category:shoes>running", "word:running", "word:shoe"}
    assert shared(boot, runner) == "category:shoes"
    assert shared(pan, lamp) in {"category:home", "word:desk"}
    assert shared(boot, lamp) is None
    assert shared(Item("x", price=20.5, category=["home"]), lamp) in {"price", "category:home"}
    assert shared(Item("x", price=20.5), Item("y", price=20.0)) == "price"


@pytest.mark.parametrize("vector", [[1.0], [0.0, 0.0], [1.0, 2.0, 3.0], [1e308, 1e308]])
def test_an_embedding_that_does_not_fit_is_refused_by_its_name(vector: list[float]) -> None:
    with pytest.raises(MessageError, match="must hold 2 numbers, not all 0") as refused:
        embedding_of(Item("x", embeddings={"look": vector}), LOOKS)
    assert (refused.value.code, refused.value.field) == ("bad_embedding", "embeddings.look")


def test_an_embedding_that_is_not_asked_for_or_not_there_is_none() -> None:
    item = Item("x", embeddings={"look": [1.0]})
    assert embedding_of(item, ContentOptions()) == b""
    assert embedding_of(item, ContentOptions(embeddings=(("text", 1),))) == b""
    assert embedding_of(Item("x"), LOOKS) == b""


def test_several_embeddings_count_alike_and_one_that_is_not_there_says_nothing() -> None:
    options = ContentOptions(embeddings=(("look", 2), ("sound", 3)))
    both, one = {"look": [3.0, 4.0], "sound": [0.0, 9.0, 0.0]}, {"sound": [0.0, 0.0, 2.0]}
    found = [unpack_array(embedding_of(Item("x", embeddings=said), options), np.float32) for said in (both, one)]
    half = 2**-0.5
    assert found[0] == pytest.approx([0.6 * half, 0.8 * half, 0, half, 0])
    assert found[1] == pytest.approx([0, 0, 0, 0, 1])
    with pytest.raises(MessageError, match="must hold 3 numbers"):
        embedding_of(Item("x", embeddings={**both, "sound": [1.0]}), options)
    # The one that fits counts all the same.
    change, fault = change_of(Item("x", embeddings={**both, "sound": [1.0]}), options)
    assert unpack_array(change.embedding, np.float32) == pytest.approx([0.6, 0.8, 0, 0, 0])
    assert fault is not None
    assert fault.field == "embeddings.sound"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), max_size=20), st.sets(st.integers(0, 7), min_size=1))
def test_an_item_described_anew_counts_once_and_what_is_kept_is_as_if_nothing_else_had_been(
    changes: list[tuple[int, int]], kept: set[int]
) -> None:
    content, again = Content(ContentOptions()), Content(ContentOptions())
    content.resize(8)
    again.resize(len(kept))
    last: dict[int, int] = {}
    for row, described in changes:
        content.follow([row], [tokens_of(ITEMS[described])], [b""])
        last[row] = described
    rows = sorted(kept)
    content.retain(np.array(rows))
    told = [row for row in last if row in kept]
    again.follow(map(rows.index, told), (tokens_of(ITEMS[last[row]]) for row in told), [b""] * len(told))
    restored = Content(ContentOptions())
    restored.load(content.snapshot())
    asked = np.array([range(len(rows))]), np.ones((1, len(rows)), np.float32), np.array([range(len(rows))])
    pools = []
    for one in (content, again, restored):
        assert one.score_candidates(*asked) == pytest.approx(again.score_candidates(*asked), abs=1e-6)
        pools.append(one.pool(np.zeros(len(rows), np.float32).__getitem__, np.zeros(len(rows), np.bool_)).tolist())
    assert pools[0] == pools[1] == pools[2]
