import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import MessageError
from schema.event import EVENT_TYPES, Event, EventParser, encode_event
from schema.recommendation import is_default

pytestmark = pytest.mark.unit

NOW = 1_700_000_000_000
PARSER = EventParser({"pv": "view"})
GOOD: dict[str, Any] = {"event_id": "e1", "user_id": "u1", "event_type": "view", "timestamp": NOW, "item_id": "i1"}


def payload(**changes: Any) -> bytes:
    return msgspec.json.encode({name: given for name, given in (GOOD | changes).items() if given is not ...})


def with_raw(field: str, raw: bytes) -> bytes:
    return payload(**{field: msgspec.Raw(raw)})


@pytest.mark.parametrize(
    ("raw", "code", "field", "value"),
    [
        (None, "empty", None, "None"),
        (b"", "empty", None, "b''"),
        (b" \n", "empty", None, "b' \\n'"),
        (b"x" * 65_537, "too_large", None, "b'xxx"),
        (b'{"event_id":"\xff"}', "not_utf8", None, "b'\\xff\"}'"),
        (b'{"event_id":', "not_json", None, """'{"event_id":'"""),
        (b'{"value":NaN}', "not_json", None, """'{"value":NaN}'"""),
        (b'{"event_id":"\\ud800"}', "not_json", None, "'{"),
        (b'{"deep":' + b"[" * 30_000, "not_json", None, "'{"),
        (b"[1]", "not_an_object", None, "'[1]'"),
        (b"null", "not_an_object", None, "'null'"),
        (payload(user_id=...), "missing_field", "user_id", "nothing"),
        (payload(item_id=...), "missing_field", "item_id", "nothing"),
        (payload(event_type="impression", item_id=None), "missing_field", "item_id", "nothing"),
        (payload(event_type="rating"), "missing_field", "value", "nothing"),
        (payload(event_id=True), "wrong_type", "event_id", "true"),
        (payload(user_id=1.5), "wrong_type", "user_id", "1.5"),
        (payload(user_id=None), "wrong_type", "user_id", "null"),
        (payload(price="12"), "wrong_type", "price", '"12"'),
        (payload(properties=[]), "wrong_type", "properties", "[]"),
        (payload(timestamp="yesterday"), "wrong_type", "timestamp", '"yesterday"'),
        (payload(timestamp="2023-11-14T22:13:20"), "wrong_type", "timestamp", '"2023-11-14T22:13:20"'),
        (payload(timestamp=1.7e12 + 0.5), "wrong_type", "timestamp", "1700000000000.5"),
        (b'{"event_id":true,' + payload()[1:], "wrong_type", None, "'{"),
        (payload(event_type="teleport"), "unknown_event_type", "event_type", "'teleport'"),
        (payload(timestamp=NOW // 1000), "absurd_timestamp", "timestamp", "1700000000"),
        (payload(timestamp=NOW + 86_400_001), "absurd_timestamp", "timestamp", "1700086400001"),
        (payload(timestamp="0001-01-01T00:00:00+14:00"), "absurd_timestamp", "timestamp", "-62135647200000"),
        (payload(user_id="u" * 257), "id_too_long", "user_id", "'uuu"),
        (payload(list_id="l" * 257), "id_too_long", "list_id", "'lll"),
        (payload(event_id=""), "empty_id", "event_id", "''"),
        (payload(user_id="__default__"), "reserved_id", "user_id", "'__default__'"),
        (payload(user_id="__default__?a=b"), "reserved_id", "user_id", "'__default__?a=b'"),
        (payload(item_id=""), "empty_id", "item_id", "''"),
        (payload(price=-1), "absurd_number", "price", "-1"),
        (payload(quantity=1e13), "absurd_number", "quantity", "10000000000000.0"),
        (with_raw("value", b"1e999"), "absurd_number", "value", "1e999"),
        (with_raw("properties", b'{"a":1e999}'), "absurd_number", "properties", '{"a":1e999}'),
    ],
)
def test_a_fault_is_named_with_its_field_and_value(raw: bytes | None, code: str, field: str | None, value: str) -> None:
    with pytest.raises(MessageError) as caught:
        PARSER.parse(raw, NOW)
    error = caught.value
    assert (error.code, error.field) == (code, field)
    assert error.value.startswith(value)
    assert len(error.value) <= 200
    assert error.value in str(error)
    assert (field or "message") in str(error)


def test_an_error_survives_pickling() -> None:
    error = MessageError("empty_id", "user_id", "''", "an id must not be empty")
    copy = pickle.loads(pickle.dumps(error))
    assert (vars(copy), str(copy)) == (vars(error), str(error))


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20.123Z", "2023-11-15T03:43:20.123456+05:30", "2023-11-14T14:13:20.123-08:00"]
)
def test_rfc_3339_becomes_epoch_milliseconds(text: str) -> None:
    assert PARSER.parse(payload(timestamp=text), NOW).timestamp == 1_700_000_000_123


def test_integer_ids_become_text() -> None:
    event = PARSER.parse(payload(event_id=0, user_id=7, item_id=2**70, session_id=0, list_id=9), NOW)
    ids = (event.event_id, event.user_id, event.item_id, event.session_id, event.list_id)
    assert ids == ("0", "7", str(2**70), "0", "9")


def test_an_empty_session_or_list_is_none() -> None:
    event = PARSER.parse(payload(session_id="", list_id=""), NOW)
    assert (event.session_id, event.list_id) == (None, None)


def test_the_edges_of_time_and_length_are_taken() -> None:
    assert PARSER.parse(payload(timestamp=1.7e12), NOW).timestamp == 1_700_000_000_000
    assert PARSER.parse(payload(timestamp=NOW + 86_400_000), NOW).timestamp == NOW + 86_400_000
    assert PARSER.parse(payload(timestamp=315_532_800_000), NOW).timestamp == 315_532_800_000
    assert len(PARSER.parse(payload(user_id="u" * 256), NOW).user_id) == 256


def test_unknown_fields_are_tolerated() -> None:
    assert PARSER.parse(payload(device={"os": "x"}), NOW) == PARSER.parse(payload(), NOW)


def test_foreign_event_types_are_translated_beside_our_own() -> None:
    assert PARSER.parse(payload(event_type="pv"), NOW).event_type == "view"
    assert PARSER.parse(payload(event_type="dislike"), NOW).event_type == "dislike"
    assert PARSER.parse(payload(event_type="search", item_id=...), NOW).item_id is None
    assert PARSER.parse(payload(event_type="erase_user", item_id=...), NOW).item_id is None


def test_a_vocabulary_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="teleport"):
        EventParser({"x": "teleport"})


def test_the_order_of_event_types_is_stored_in_state() -> None:
    assert EVENT_TYPES == (
        "view", "add_to_cart", "remove_from_cart", "favorite", "purchase",
        "rating", "search", "impression", "dislike", "erase_user",
    )  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(Event.__struct_fields__)


@given(
    st.binary()
    | st.dictionaries(FIELDS, JSON).map(lambda changes: payload(**changes))
    | st.tuples(st.binary(max_size=3), st.integers(0, 120)).map(lambda cut: payload()[: cut[1]] + cut[0])
)
def test_any_bytes_parse_or_raise_a_message_error(raw: bytes) -> None:
    try:
        event = PARSER.parse(raw, NOW)
    except MessageError:
        return
    assert event.event_type in EVENT_TYPES
    assert PARSER.parse(encode_event(event), NOW) == event


IDS = st.text(min_size=1, max_size=256)
AMOUNTS = st.none() | st.floats(0, 1e12)
EVENTS = st.builds(
    Event,
    event_id=IDS,
    # Hypothesis also draws from the constants of our own code.
    user_id=IDS.filter(lambda user: not is_default(user)),
    event_type=st.sampled_from(EVENT_TYPES),
    timestamp=st.integers(315_532_800_000, NOW + 86_400_000),
    item_id=IDS,
    value=st.floats(-1e12, 1e12),
    quantity=AMOUNTS,
    price=AMOUNTS,
    currency=st.none() | st.text(),
    query=st.none() | st.text(),
    session_id=st.none() | IDS,
    list_id=st.none() | IDS,
    properties=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
)


@given(EVENTS)
def test_an_event_comes_back_as_it_was_encoded(event: Event) -> None:
    raw = encode_event(event)
    assert PARSER.parse(raw, NOW) == event
    present = {name for name in Event.__struct_fields__ if getattr(event, name) is not None} - {"consent"}
    assert msgspec.json.decode(raw).keys() == present


def test_consent_is_given_unless_refused() -> None:
    raw = encode_event(Event("e", "u", "view", NOW, "i"))
    assert PARSER.parse(raw, NOW).consent
    assert not PARSER.parse(raw[:-1] + b',"consent":false}', NOW).consent
    with pytest.raises(MessageError, match="consent"):
        PARSER.parse(raw[:-1] + b',"consent":"no"}', NOW)
