"""Sentences as vectors, by a network that was trained for it.

Source: Reimers, Gurevych, "Sentence-BERT: Sentence embeddings using Siamese BERT-networks", EMNLP 2019. Weights come
from a folder, or from an installed package that carries them; nothing is fetched.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from model.batch import Weights
from schema.item import Item


def text_of(item: Item) -> str:
    """What an item is called and what is said of it: title, brand, the path of its category, description; "" where
    nothing is."""
    parts = (item.title, item.brand, " > ".join(item.category), item.description)
    return ". ".join(part.strip() for part in parts if part and part.strip())


def find_encoder(name: str) -> Path:
    """The folder of the model: `name` itself, or that of the installed package of this name, whose `get_model_path`
    tells it. Raises ValueError where it is neither."""
    if Path(name).is_dir():
        return Path(name).resolve()
    if not name.isidentifier() or find_spec(name) is None:
        raise ValueError(f"{name} is no folder, nor a package that is installed")
    try:
        return Path(import_module(name).get_model_path())
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the package {name} carries no model: {error}") from error


def text_dimensions(name: str) -> int | None:
    """How many numbers a vector of the model of this name has, None where its files do not say. Raises ValueError as
    `find_encoder` does."""
    pooling = find_encoder(name) / "1_Pooling" / "config.json"
    return json.loads(pooling.read_text()).get("word_embedding_dimension") if pooling.exists() else None


class TextEncoder:
    """A model of sentence-transformers, on a GPU where there is one. Raises ValueError where there is none of that
    name."""

    def __init__(self, name: str) -> None:
        folder = find_encoder(name)
        # Takes seconds, which only who encodes is to spend.
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder), local_files_only=True)

    def encode(self, texts: Sequence[str]) -> Weights:
        """The texts at length 1: float32 [n, dimensions of the model]."""
        found: Weights = self._model.encode(
            list(texts), convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return found
