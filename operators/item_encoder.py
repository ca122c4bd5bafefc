"""Gives catalogue messages the embeddings of their text and their image, where the shop sent none."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from operators.worker import prepare_worker  # isort: skip, numba comes in with the models
from model.batch import Weights
from model.image_encoder import ImageEncoder
from model.item_encoding import Encoding
from model.text_encoder import TextEncoder, find_encoder, text_of
from operators.images import Images
from schema.errors import MessageError
from schema.item import parse_item, with_embedding

_log = logging.getLogger(__name__)
_AT_ONCE, _REMEMBERED = 32, 16_384


class ItemEncoderFunction(ProcessFunction):
    """In and out: Row(key, Row(rows (item_id, payload, partition, offset))) of the catalogue. A payload of an available
    item that lacks one of the embeddings of `encodings`, and has the title, brand, category, description or image that
    it is made of, comes out with it; any other, malformed ones among them, as it came in. Where an encoder fails, all
    of that batch go on without its embedding. What was encoded lately, or an image at the same address, is not again: a
    price or a stock that changes is cheap."""

    def __init__(self, encodings: Sequence[Encoding]) -> None:
        # The workers have another working directory.
        self._encodings = [
            encoding._replace(made_by=str(find_encoder(encoding.made_by)))
            if Path(encoding.made_by).is_dir() and not encoding.of_images
            else encoding
            for encoding in encodings
        ]

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the metrics."""
        prepare_worker()
        # By embedding and what it was made of.
        self._made: OrderedDict[tuple[str, bytes], Weights] = OrderedDict()
        self._encoders: dict[str, Callable[[list[str]], Sequence[Weights | None]]] = {}
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._encoded, self._failures = metrics.counter("items_encoded"), 0
        metrics.gauge("encoder_failures", lambda: self._failures)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Encode one micro-batch."""
        key, (rows,) = value
        rows = list(rows)
        for encoding in self._encodings:
            rows = self._with_embeddings(rows, encoding)
        yield Row(key, Row(rows))

    def _with_embeddings(self, rows: list[Row], encoding: Encoding) -> list[Row]:
        """The rows with one embedding more."""
        given = {n: said for n, row in enumerate(rows) if (said := self._said(row, encoding))}
        encoded, made = list(rows), 0
        try:
            for n, vector in zip(given, self._encode(list(given.values()), encoding) if given else [], strict=True):
                item_id, payload, partition, offset = rows[n]
                if vector is None:
                    self._failures += 1
                    continue
                encoded[n] = Row(item_id, with_embedding(bytes(payload), encoding.embedding, vector), partition, offset)
                made += 1
        except Exception:
            _log.exception("%s has failed on %d items, which go on without", encoding.made_by, len(given))
            self._failures += len(given)
            return rows
        self._encoded.inc(made)
        return encoded

    def _encode(self, given: list[str], encoding: Encoding) -> Sequence[Weights | None]:
        keys = [(encoding.embedding, blake2b(said.encode(errors="replace")).digest()) for said in given]
        missing = {key: said for key, said in zip(keys, given, strict=True) if key not in self._made}
        for key, vector in zip(missing, self._encoded_anew(list(missing.values()), encoding), strict=True):
            if vector is not None:
                self._made[key] = vector
        found = [self._made.get(key) for key in keys]
        for key in keys:
            if key in self._made:
                self._made.move_to_end(key)
        while len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return found

    def _encoded_anew(self, given: list[str], encoding: Encoding) -> Sequence[Weights | None]:
        if not given:
            return []
        # Made here and not when the job starts: what fails is to cost embeddings, not lists.
        if encoding.embedding not in self._encoders:
            self._encoders[encoding.embedding] = _encoder_of(encoding)
        return self._encoders[encoding.embedding](given)

    def _said(self, row: Row, encoding: Encoding) -> str:
        """What is to be encoded: a text, or where an image is; "" where nothing is, or the learner will refuse the
        message."""
        item_id, payload, _, _ = row
        try:
            _, item = parse_item(item_id, None if payload is None else bytes(payload))
        except MessageError:
            return ""
        if item is None or not item.available or encoding.embedding in (item.embeddings or {}):
            return ""
        return (item.image_url or "") if encoding.of_images else text_of(item)


def _encoder_of(encoding: Encoding) -> Callable[[list[str]], Sequence[Weights | None]]:
    if not encoding.of_images:
        text_encoder = TextEncoder(encoding.made_by)
        return lambda texts: list(text_encoder.encode(texts))
    image_encoder = ImageEncoder(encoding.made_by, Path(encoding.weights))
    images = Images(encoding.sources)

    def encode(addresses: list[str]) -> list[Weights | None]:
        # A first load brings thousands: not all of them at once in memory.
        parts = (addresses[n : n + _AT_ONCE] for n in range(0, len(addresses), _AT_ONCE))
        return [
            vector for part in parts for vector in image_encoder.encode([image or b"" for image in images.fetch(part)])
        ]

    return encode
