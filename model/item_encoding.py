"""Which embedding of an item is made by which encoder."""

from typing import NamedTuple


class Encoding(NamedTuple):
    """`made_by` is an encoder that makes the `embedding`: of texts, or `of_images`, which come from the `sources`, with
    the `weights` of a file."""

    embedding: str
    made_by: str
    of_images: bool = False
    weights: str = ""
    sources: tuple[str, ...] = ()
