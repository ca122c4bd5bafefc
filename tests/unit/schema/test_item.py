import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import MessageError
from schema.item import Item, encode_item, parse_item, with_embedding

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("key", "raw", "code", "field", "value"),
    [
        ("k", b"", "empty", None, "b''"),
        ("k", b"x" * 1_048_577, "too_large", None, "b'xxx"),
        (None, None, "missing_field", "item_id", "nothing"),
        (None, b"{}", "missing_field", "item_id", "nothing"),
        ("", b"{}", "empty_id", "item_id", "''"),
        ("k" * 257, None, "id_too_long", "item_id", "'kkk"),
        ("k", b'{"category":"shoes"}', "wrong_type", "category", '"shoes"'),
        ("k", b'{"price":-2}', "absurd_number", "price", "-2"),
        ("k", b'{"relations":{"accessory_of":["i1",""]}}', "empty_id", "relations.accessory_of", "''"),
        ("k", b'{"embeddings":{"text":[1e300]}}', "absurd_number", "embeddings", '{"text":[1e300]}'),
        ("k", b'{"created_at":999999999999999}', "absurd_timestamp", "created_at", "999999999999999"),
    ],
)
def test_a_fault_is_named_with_its_field_and_value(
    key: str | None, raw: bytes | None, code: str, field: str | None, value: str
) -> None:
    with pytest.raises(MessageError) as caught:
        parse_item(key, raw)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.value.startswith(value)


def test_no_value_removes_the_item() -> None:
    assert parse_item("k", None) == ("k", None)
    assert parse_item("k", b"null") == ("k", None)


def test_the_id_comes_from_the_value_else_from_the_key() -> None:
    assert parse_item("k", b'{"item_id":5}') == ("5", Item("5"))
    assert parse_item("k", b'{"title":"t"}') == ("k", Item("k", title="t"))
    assert parse_item(None, b'{"item_id":"v"}') == ("v", Item("v"))
    assert parse_item("k", b'{"relations":{"series":["i1",7]}}') == ("k", Item("k", relations={"series": ["i1", "7"]}))


def test_what_is_not_said_has_defaults() -> None:
    _, item = parse_item("k", b'{"created_at":"1969-12-31T23:59:59Z"}')
    assert item == Item("k", category=[], available=True, created_at=-1000)


ITEMS = st.builds(
    Item,
    item_id=st.text(min_size=1, max_size=256),
    title=st.none() | st.text(),
    category=st.lists(st.text(), max_size=3),
    price=st.none() | st.floats(0, 1e12),
    available=st.booleans(),
    created_at=st.none() | st.integers(0, 10**13),
    relations=st.none() | st.dictionaries(st.text(), st.lists(st.text(min_size=1, max_size=9), max_size=3), max_size=2),
    embeddings=st.none() | st.dictionaries(st.text(), st.lists(st.floats(-1e12, 1e12), max_size=3), max_size=2),
)


@given(ITEMS)
def test_an_item_comes_back_as_it_was_encoded(item: Item) -> None:
    assert parse_item(None, encode_item(item)) == (item.item_id, item)


@given(st.none() | st.text(), st.binary() | st.dictionaries(st.text(), st.none() | st.text()).map(msgspec.json.encode))
def test_any_bytes_parse_or_raise_a_message_error(key: str | None, raw: bytes) -> None:
    try:
        item_id, _ = parse_item(key, raw)
    except MessageError:
        return
    assert item_id


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b',"foo":1e999',
        b',"foo":"\xff"',
        b',"foo":{"a":[1,2]}',
        b',"embeddings":null',
        b',"embeddings":{"look":[1.0]}',
    ],
)
def test_an_embedding_is_added_and_the_rest_stays_as_it_was(rest: bytes) -> None:
    raw = b'{"item_id":"a","title":"x"' + rest + b"}"
    _, before = parse_item(None, raw)
    added = with_embedding(raw, "text", [0.5, -1.0])
    _, item = parse_item(None, added)
    assert before is not None
    assert item is not None
    assert item.embeddings == {**(before.embeddings or {}), "text": [0.5, -1.0]}
    item.embeddings = before.embeddings
    assert item == before
    assert b'"foo"' not in rest or rest[1:] in added
    assert with_embedding(raw, "text", [float("nan")]) == raw
    large = b'{"title":"' + b"x" * 1_048_000 + b'"}'
    assert with_embedding(large, "text", [0.123456] * 384) == large
