"""Recommendations and dead letters."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.dead_letter import dead_letter, decode_dead_letter
from schema.errors import MessageError
from schema.experiment import parse_experiment
from schema.recommendation import (
    DEFAULT_USER,
    Recommendation,
    ScoredItem,
    decode_recommendation,
    default_user,
    encode_recommendation,
    is_default,
)
from schema.similar_items import SimilarItem, SimilarItems, decode_similar_items, encode_similar_items
from schema.taste_segment import TasteSegment, decode_taste_segment, encode_taste_segment

pytestmark = pytest.mark.unit

LIST = Recommendation("u", "l", 2, "e", 1, 7, "fold_in", [ScoredItem("i", 0.5, "cf")])


def test_a_recommendation_comes_back_as_it_was_encoded() -> None:
    raw = encode_recommendation(LIST)
    assert decode_recommendation(raw) == LIST
    assert list(msgspec.json.decode(raw)) == [
        "user_id", "list_id", "generated_at", "event_id", "event_timestamp", "model_version", "strategy", "items",
        "profile_version", "last_seen", "segment", "experiments",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("context", "key"),
    [
        ({}, DEFAULT_USER),
        ({"country": ""}, DEFAULT_USER),
        ({"device": "phone", "country": "DE"}, "__default__?country=DE&device=phone"),
        ({"age": 30.0, "member": True, "share": 0.5, "town": "Bad Köln & Ümit=1"}, None),
    ],
)
def test_people_without_history_have_a_list_by_context(context: dict[str, str | bool | float], key: str | None) -> None:
    expected = key or "__default__?age=30&member=true&share=0.5&town=Bad+K%C3%B6ln+%26+%C3%9Cmit%3D1"
    assert default_user(context) == expected
    assert is_default(expected)
    assert not is_default(f"{DEFAULT_USER}s")


def test_only_items_that_another_led_to_say_so() -> None:
    caused = msgspec.structs.replace(LIST, items=[ScoredItem("i", 0.5, "cf", "j"), ScoredItem("k", 0.4, "popularity")])
    raw = encode_recommendation(caused)
    assert decode_recommendation(raw) == caused
    assert [list(item) for item in msgspec.json.decode(raw)["items"]] == [
        ["item_id", "score", "source", "because"],
        ["item_id", "score", "source"],
    ]


def test_similar_items_come_back_as_they_were_encoded() -> None:
    similar = SimilarItems("i", 1, 7, [SimilarItem("j", 0.5)])
    assert decode_similar_items(encode_similar_items(similar)) == similar


def test_a_taste_segment_comes_back_as_it_was_encoded() -> None:
    segment = TasteSegment("u", 3, 1)
    assert decode_taste_segment(encode_taste_segment(segment)) == segment


def test_a_broken_recommendation_names_the_field() -> None:
    with pytest.raises(MessageError) as caught:
        decode_recommendation(encode_recommendation(LIST).replace(b"0.5", b"null"))
    assert (caught.value.code, caught.value.field) == ("wrong_type", "items")


@given(st.none() | st.binary() | st.text().map(str.encode))
def test_the_payload_of_a_dead_letter_comes_back(payload: bytes | None) -> None:
    error = MessageError("empty_id", "user_id", "''", "an id must not be empty")
    letter = decode_dead_letter(dead_letter(error, "events", 3, 99, 1_700_000_000_000, payload))
    assert (letter.error, letter.message) == ("empty_id", "user_id: an id must not be empty (given: '')")
    assert (letter.topic, letter.partition, letter.offset, letter.received_at) == ("events", 3, 99, 1_700_000_000_000)
    assert letter.payload_bytes() == payload


@pytest.mark.parametrize("payload", [b"\xff" * 900_000, b"\1" * 300_000, "é".encode() * 40_000 + b"a"])
def test_of_a_large_payload_the_beginning_is_kept_so_that_the_broker_takes_the_letter(payload: bytes) -> None:
    raw = dead_letter(("too_large", "too large"), "events", 0, 0, 0, payload)
    letter = decode_dead_letter(raw)
    begin = letter.payload_bytes()
    assert len(raw) < 500_000
    assert letter.truncated
    assert begin is not None
    assert len(begin) >= 65_535
    assert payload.startswith(begin)


def test_what_is_said_of_a_message_is_bounded_too() -> None:
    stopped = json.dumps({"experiment_id": "e", "stopped": [1] * 20_000}).encode()
    with pytest.raises(MessageError) as caught:
        parse_experiment(None, stopped)
    assert len(dead_letter(caught.value, "experiments", 0, 0, 0, stopped)) < 100_000


def test_only_bytes_that_are_not_text_are_base64() -> None:
    text = msgspec.json.decode(dead_letter(("late", "too late"), "events", 0, 0, 0, "é".encode()))
    assert (text["error"], text["message"], text["payload"]) == ("late", "too late", "é")
    assert "encoding" not in text
    binary = msgspec.json.decode(dead_letter(("late", "too late"), "events", 0, 0, 0, b"\xff"))
    assert (binary["payload"], binary["encoding"]) == ("/w==", "base64")
