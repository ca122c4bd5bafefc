"""The image encoder: real photographs through a real network, weights from a file, and what is no image is told."""

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from model.image_encoder import ImageEncoder, image_dimensions

pytestmark = pytest.mark.unit
NAME = "resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that nobody has trained: they tell a temple from a flower by colour and grain all the same."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), path)
    return path


def cut(picture: int, left: int, format_: str = "PNG") -> bytes:
    """A small part of one of scikit-learn's two photographs."""
    pixels, file = load_sample_images().images[picture], io.BytesIO()
    Image.fromarray(pixels[200:296, left : left + 96]).save(file, format_)
    return file.getvalue()


def test_parts_of_one_photograph_are_nearer_than_those_of_two(weights: Path) -> None:
    images = [cut(0, 300), cut(0, 350, "JPEG"), cut(1, 220), cut(1, 270, "WEBP")]
    encoder = ImageEncoder(NAME, weights)
    vectors = np.stack([vector for vector in encoder.encode(images) if vector is not None])
    assert vectors.shape == (4, image_dimensions(NAME))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Around what is common to all images, which untrained weights see most of.
    around = vectors - vectors.mean(0)
    assert (around @ around.T - np.eye(4)).argmax(1).tolist() == [1, 0, 3, 2]
    (again,) = ImageEncoder(NAME, weights).encode(images[1:2])
    np.testing.assert_allclose(again, vectors[1], atol=1e-5)


def test_what_is_no_image_or_a_bomb_costs_its_own_vector_only(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ImageEncoder(NAME, weights)
    image = cut(0, 0)
    found = encoder.encode([b"", image, b"<svg/>", image[:400]])
    assert [vector is None for vector in found] == [True, False, True, True]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 96 - 1)
    assert encoder.encode([image]) == [None]
    assert encoder.encode([]) == []


def test_an_image_that_would_fill_the_memory_is_refused(weights: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 3000)).save(file, "PNG")
    assert ImageEncoder(NAME, weights).encode([file.getvalue()]) == [None]


def test_what_does_not_fit_is_named(weights: Path) -> None:
    with pytest.raises(ValueError, match="resnet18"):
        ImageEncoder("resnet18", weights)
    with pytest.raises(ValueError, match="no encoder lenet"):
        image_dimensions("lenet")
