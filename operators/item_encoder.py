"""Gives catalogue messages the embedding of their text, where the shop sent none."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from operators.worker import prepare_worker  # isort: skip, numba comes in with the models
from model.batch import Weights
from model.text_encoder import TextEncoder, find_encoder, text_of
from schema.errors import MessageError
from schema.item import parse_item, with_embedding

_log = logging.getLogger(__name__)


class ItemEncoderFunction(ProcessFunction):
    """In and out: Row(key, Row(rows (item_id, payload, partition, offset))) of the catalogue. A payload with a title,
    brand, category or description, and no embedding `embedding`, comes out with one of `encoder`; any other, malformed
    ones among them, as it came in. Where the encoder fails, all of that batch go on as they came."""

    def __init__(self, encoder: str, embedding: str) -> None:
        # The workers have another working directory.
        self._name = str(find_encoder(encoder)) if Path(encoder).is_dir() else encoder
        self._embedding = embedding

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the metrics."""
        prepare_worker()
        self._encoder: TextEncoder | None = None
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._encoded, self._failures = metrics.counter("items_encoded"), 0
        metrics.gauge("encoder_failures", lambda: self._failures)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Encode one micro-batch."""
        key, (rows,) = value
        rows = list(rows)
        texts = {n: text for n, row in enumerate(rows) if (text := self._text_of(row))}
        encoded = list(rows)
        try:
            for n, vector in zip(texts, self._encode(list(texts.values())) if texts else [], strict=True):
                item_id, payload, partition, offset = rows[n]
                encoded[n] = Row(item_id, with_embedding(bytes(payload), self._embedding, vector), partition, offset)
            self._encoded.inc(len(texts))
        except Exception:
            _log.exception("the encoder has failed on %d items, which go on without", len(texts))
            self._failures += len(texts)
            encoded = rows
        yield Row(key, Row(encoded))

    def _encode(self, texts: list[str]) -> list[Weights]:
        # Not when the job starts: what fails here is to cost embeddings, not lists.
        self._encoder = self._encoder or TextEncoder(self._name)
        return list(self._encoder.encode(texts))

    def _text_of(self, row: Row) -> str:
        """What is to be encoded; "" where nothing is, or the learner will refuse the message."""
        item_id, payload, _, _ = row
        try:
            _, item = parse_item(item_id, None if payload is None else bytes(payload))
        except MessageError:
            return ""
        return "" if item is None or self._embedding in (item.embeddings or {}) else text_of(item)
