"""Validates catalogue messages and hands on whether each item may be on lists."""

import time
from collections.abc import Iterator

import msgspec
from pyflink.common import Row
from pyflink.datastream import ProcessFunction

from model.blend import CatalogueChange
from operators.profile import DEAD_LETTERS
from schema.dead_letter import dead_letter
from schema.errors import MessageError
from schema.item import parse_item

CATALOGUE_SHARD = -1
"""The shard of catalogue changes: they go to the learner only."""


class CatalogueFunction(ProcessFunction):
    """In: Row(item_id, payload, partition, offset). Out: Row(CATALOGUE_SHARD, 0, packed CatalogueChange), dead
    letters."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[object]:
        """Take one catalogue message."""
        key, payload, partition, offset = value
        payload = None if payload is None else bytes(payload)
        try:
            item_id, item = parse_item(key, payload)
        except MessageError as error:
            now = int(time.time() * 1000)
            yield DEAD_LETTERS, Row(dead_letter(error, self._topic, partition, offset, now, payload))
            return
        change = CatalogueChange(item_id, item is not None and item.available)
        yield Row(CATALOGUE_SHARD, 0, msgspec.msgpack.encode(change))
