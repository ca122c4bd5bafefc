"""One for the whole job: owns the model, learns from every micro-batch, and tells the scorers what changed."""

import time
from collections.abc import Iterator

import msgspec
import torch
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from model.blend import BlendOptions, CatalogueChange, Delta, Recommender, pack_delta
from model.snapshot import unpack_snapshot
from operators.catalogue import CATALOGUE_SHARD

DELTAS = Types.ROW_NAMED(["whole", "payload"], [Types.BOOLEAN(), Types.PICKLED_BYTE_ARRAY()])
_change_decoder = msgspec.msgpack.Decoder(CatalogueChange)


class LearnerFunction(KeyedProcessFunction):
    """In: Row(key, Row(shard, requests)), all under one key. Out: Row(whole, payload): the whole packed recommender
    first after every start, then a delta for each batch.

    Keyed state: `base`, the packed recommender, and `log`, the batches learned from since, by number. Learning is
    deterministic, so both give the model. The log is folded into the base after `compact_after_events` events.
    """

    def __init__(self, options: BlendOptions, compact_after_events: int) -> None:
        self._options, self._compact_after_events = options, compact_after_events

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics; the model itself is read with the first batch."""
        torch.set_num_threads(1)
        self._base = runtime_context.get_state(ValueStateDescriptor("base", Types.PICKLED_BYTE_ARRAY()))
        # A map, not a list: RocksDB keeps a list as one value, which it would rewrite again and again as it grows.
        log = MapStateDescriptor("log", Types.LONG(), Types.PICKLED_BYTE_ARRAY())
        self._log = runtime_context.get_map_state(log)
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._learned = metrics.counter("interactions_learned")
        self._milliseconds, self._version = 0, 0
        metrics.gauge("learner_ms", lambda: self._milliseconds)
        metrics.gauge("model_version", lambda: self._version)
        self._recommender: Recommender | None = None
        self._logged = self._batches = 0

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Learn from one micro-batch."""
        started = time.perf_counter()
        shard, requests = value
        requests = [bytes(request) for request in requests]
        if self._recommender is None:
            self._recommender = self._restored()
            yield Row(True, self._recommender.pack())
        delta = _learn(self._recommender, shard, requests)
        self._remember(shard, requests)
        self._version = self._recommender.version
        self._milliseconds = round((time.perf_counter() - started) * 1000)
        yield Row(False, pack_delta(delta))

    def _restored(self) -> Recommender:
        packed = self._base.value()
        recommender = Recommender(self._options) if packed is None else Recommender.unpack(packed, self._options)
        for _, entry in sorted(self._log.items()):
            self._batches += 1
            shard, requests = msgspec.msgpack.decode(entry, type=tuple[int, list[bytes]])
            _learn(recommender, shard, requests)
            self._logged += len(requests)
        return recommender

    def _remember(self, shard: int, requests: list[bytes]) -> None:
        self._learned.inc(len(requests))
        self._logged += len(requests)
        if self._logged < self._compact_after_events or self._recommender is None:
            self._log.put(self._batches, msgspec.msgpack.encode((shard, requests)))
            self._batches += 1
            return
        self._base.update(self._recommender.pack())
        self._log.clear()
        self._logged = self._batches = 0


def _learn(recommender: Recommender, shard: int, requests: list[bytes]) -> Delta:
    if shard == CATALOGUE_SHARD:
        return recommender.learn([], [_change_decoder.decode(request) for request in requests])
    return recommender.learn([unpack_snapshot(request) for request in requests])
