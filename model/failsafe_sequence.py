"""The sequence model, so that what goes wrong in it costs what it has learned, and no list."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from model.batch import Batch, Rows, Weights
from model.content import Content
from model.devices import Table, on_host
from model.reading_time import ReadingTime
from model.sequence_model import SequenceDelta, SequenceModel, SequenceOptions

_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What the sequence model makes of B people's histories: `queries` float32 [B, D], None where it has not read; the
    `likeliest` items int64 [B, E], -1 for none; and how many milliseconds that took."""

    queries: Weights | None
    likeliest: Rows
    took_ms: float


class FailsafeSequence:
    """Where the `model` fails while it learns or follows it begins anew: a learner tells, and a replica waits for its
    learner to. Where it fails to read, lists are made without it. `failures` counts both."""

    name = SequenceModel.name

    def __init__(self, options: SequenceOptions, device: torch.device) -> None:
        self._options, self._device = options, device
        self.model = SequenceModel(options, device)
        self.failures = 0
        self.reading_time = ReadingTime()
        self._items = 0
        # Whether it has failed since the other side began it.
        self._lost = False

    def resize(self, items: int) -> None:
        """Make room for `items` rows."""
        self._items = items
        self.model.resize(items)

    def retain(self, rows: Rows) -> None:
        """Keep only these items, as rows 0, 1, 2."""
        self._items = len(rows)
        with self._at_risk():
            self.model.retain(rows)

    def changed(self, rows: Rows) -> None:
        """Take note that the content of these items is another."""
        with self._at_risk():
            self.model.changed(rows)

    def learn(self, batch: Batch, content: Content, train: bool, related: Callable[[], Rows]) -> SequenceDelta:
        """As `SequenceModel.learn`; the delta of a failure says so."""
        if not self._options.network:
            return SequenceDelta()
        if self._lost:
            self._lost = False
            return SequenceDelta(anew=True)
        with self._at_risk():
            return self.model.learn(batch, content, train, related)
        self._lost = False
        return SequenceDelta(anew=True)

    def apply(self, delta: SequenceDelta) -> None:
        """Follow the learner."""
        if delta.anew:
            self._begin()
            self._lost = False
        if not self._lost:
            with self._at_risk():
                self.model.apply(delta)

    def read(
        self,
        batch: Batch,
        wanted: npt.NDArray[np.bool_],
        prior: Table,
        popular: Rows | None,
        own: Rows,
        excluded: Rows,
        bounds: Rows,
        content: Content,
    ) -> Reading:
        """What it makes of the histories of those people who are `wanted`, bool [B, 1] or of all; nothing where there
        is no network, or it fails. The likeliest are looked for among the `popular`, of a small catalogue among all
        whose `prior` float32 [N] is not -inf, and not among people's `own` items, nor in row n's `excluded` from
        `bounds[n]` to `bounds[n + 1]`."""
        nothing = Reading(None, np.empty((len(batch.users), 0), np.int64), 0.0)
        if not self._options.network or not wanted.any():
            return nothing
        started = time.perf_counter()
        try:
            queries = self.model.query(batch.items, batch.types, batch.gaps, content) * wanted
            if not np.isfinite(queries).all():
                raise FloatingPointError("what the sequence model makes of a history is not finite")
            among = np.flatnonzero(on_host(prior) > -math.inf) if popular is None else popular
            likeliest = self.model.likeliest(queries, among, own, excluded, bounds, content)
        except Exception:
            self._failed()
            return nothing
        return Reading(queries, likeliest, (time.perf_counter() - started) * 1000)

    def scores(self, reading: Reading, candidates: Rows, content: Content) -> Weights:
        """The scores float32 [B, C] of `candidates` int64 [B, C], 0 where it has not read, or fails."""
        if reading.queries is not None:
            started = time.perf_counter()
            try:
                scores = self.model.score_candidates(reading.queries, candidates, content)
                if not np.isfinite(scores).all():
                    raise FloatingPointError("a score of the sequence model is not finite")
                took_ms = reading.took_ms + (time.perf_counter() - started) * 1000
                self.reading_time.observe(len(scores), took_ms)
                return scores
            except Exception:
                self._failed()
        return np.zeros(candidates.shape, np.float32)

    def snapshot(self, learning: bool = True) -> dict[str, bytes]:
        """As `SequenceModel.snapshot`."""
        return self.model.snapshot(learning)

    def load(self, arrays: dict[str, bytes]) -> None:
        """The inverse of `snapshot`."""
        with self._at_risk():
            self.model.load(arrays)

    @contextmanager
    def _at_risk(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            _log.exception("the sequence model has failed, and begins anew")
            self.failures += 1
            self._begin()
            self._lost = True

    def _begin(self) -> None:
        self.model = SequenceModel(self._options, self._device)
        self.model.resize(self._items)

    def _failed(self) -> None:
        _log.exception("the sequence model has failed, and a list is made without it")
        self.failures += 1
