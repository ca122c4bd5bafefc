"""The side output of what cannot be used: messages that are not valid, and events that a model fails on."""

import time
import traceback

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import OutputTag
from pyflink.metrics import Counter, MetricGroup

from model.snapshot import Snapshot
from schema.dead_letter import dead_letter
from schema.errors import MessageError

DEAD_LETTERS = OutputTag("dead-letters", Types.ROW_NAMED(["payload"], [Types.PRIMITIVE_ARRAY(Types.BYTE())]))


class DeadLetters:
    """Makes an operator's dead letters, to be yielded, and counts them by code."""

    def __init__(self, metrics: MetricGroup, *alerted: str) -> None:
        """Codes that are `alerted` of are counted from 0 on: the increase of a counter that was not there is none."""
        self._metrics = metrics
        self._counters = {code: self._counter(code) for code in alerted}

    def of(
        self, error: MessageError | tuple[str, str], topic: str, partition: int, offset: int, payload: bytes | None
    ) -> tuple[OutputTag, Row]:
        """The dead letter of a message at its place; `error` may be a code and what is to be said."""
        code = error.code if isinstance(error, MessageError) else error[0]
        if code not in self._counters:
            self._counters[code] = self._counter(code)
        self._counters[code].inc()
        return DEAD_LETTERS, Row(dead_letter(error, topic, partition, offset, int(time.time() * 1000), payload))

    def of_failure(self, code: str, error: Exception, topic: str, snapshot: Snapshot) -> tuple[OutputTag, Row]:
        """The dead letter of a valid event on which a model raised `error`: its message is the traceback, its payload
        what the model was given, as JSON, but of an event without consent."""
        given = None if snapshot.session_only else msgspec.json.encode(snapshot)
        return self.of_message(code, error, topic, snapshot.partition, snapshot.offset, given)

    def of_message(
        self, code: str, error: Exception, topic: str, partition: int, offset: int, payload: bytes | None
    ) -> tuple[OutputTag, Row]:
        """The dead letter of a valid message at its place on which a model raised `error`."""
        told = "".join(traceback.format_exception(error))
        return self.of((code, told), topic, partition, offset, payload)

    def _counter(self, code: str) -> Counter:
        return self._metrics.add_group("code", code).counter("dead_letters")
