"""Embeddings of catalogue messages: made where one is missing, once, and never at the cost of the message."""

import json
from typing import Any

import numpy as np
import pytest
from pyflink.common import Row

import operators.item_encoder
from model.item_encoding import Encoding
from operators.item_encoder import ItemEncoderFunction
from tests.unit.operators.keyed import Keyed

pytestmark = pytest.mark.unit
LAMP = {"item_id": "a", "title": "Lamp", "price": 3.0}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was encoded so far: a text becomes its length; of an empty one nothing is made, and `poison` fails."""
    said: list[str] = []

    def encode(texts: list[str]) -> list[Any]:
        if "poison" in texts:
            raise ZeroDivisionError
        said.extend(texts)
        return [np.array([len(text)], np.float32) if text != "nothing" else None for text in texts]

    monkeypatch.setattr(operators.item_encoder, "_encoder_of", lambda _: encode)
    return said


def passed(operator: ItemEncoderFunction, *payloads: bytes | None) -> list[Any]:
    """A micro-batch: what each message says when it comes out."""
    rows = [Row("a", payload, 0, offset) for offset, payload in enumerate(payloads)]
    ((key, (out,)),) = operator.process_element(Row(0, Row(rows)), None)  # type: ignore[arg-type]
    assert (key, [row[3] for row in out]) == (0, list(range(len(payloads))))
    return [None if row[1] is None else bytes(row[1]) for row in out]


def opened() -> ItemEncoderFunction:
    operator = ItemEncoderFunction([Encoding("text", "some-encoder")])
    operator.open(Keyed())  # type: ignore[arg-type]
    return operator


def test_what_lacks_an_embedding_gets_it_and_all_else_comes_out_as_it_came_in(encoded: list[str]) -> None:
    given = json.dumps({**LAMP, "embeddings": {"text": [0.5]}}).encode()
    sold_out = json.dumps({**LAMP, "available": False}).encode()
    made, *rest = passed(opened(), json.dumps(LAMP).encode(), given, sold_out, b"{", None)
    assert json.loads(made) == LAMP | {"embeddings": {"text": [4.0]}}
    assert rest == [given, sold_out, b"{", None]
    assert encoded == ["Lamp"]


def test_the_same_text_is_encoded_once_whatever_the_item_costs(
    encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = opened()
    cheaper = json.dumps({**LAMP, "price": 2.0}).encode()
    for batch in ((json.dumps(LAMP).encode(), cheaper), (cheaper,)):
        assert all(json.loads(said)["embeddings"] == {"text": [4.0]} for said in passed(operator, *batch))
    assert encoded == ["Lamp"]
    monkeypatch.setattr(operators.item_encoder, "_REMEMBERED", 1)
    for title in ("Rug", "Lamp", "nothing", "nothing"):
        passed(operator, json.dumps({**LAMP, "title": title}).encode())
    # The one longest ago is forgotten first, and what could not be made is tried again.
    assert encoded == ["Lamp", "Rug", "Lamp", "nothing", "nothing"]


def test_where_the_encoder_fails_the_batch_goes_on_without(encoded: list[str]) -> None:
    operator, lamp = opened(), json.dumps(LAMP).encode()
    poison = json.dumps({**LAMP, "title": "poison"}).encode()
    assert passed(operator, poison, lamp) == [poison, lamp]
    assert (operator._failures, encoded) == (2, [])
    assert json.loads(passed(operator, lamp)[0])["embeddings"] == {"text": [4.0]}
