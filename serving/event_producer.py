"""Puts events, and what the shop steers by, on their topics, and says when the broker has them."""

import asyncio
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from config.kafka import Kafka
from schema.event import EventParser
from schema.wire import decode
from serving.broker import reachable

_TIMEOUT_MS = 10_000


class Accepted(msgspec.Struct):
    """The id of an event and its place on the topic, which the broker has confirmed."""

    event_id: str
    partition: int
    offset: int


class _Ids(msgspec.Struct):
    """Over HTTP ids are strings, where the topic also takes numbers."""

    user_id: str
    event_id: str = ""
    item_id: str | None = None
    session_id: str | None = None
    list_id: str | None = None


_ids = msgspec.json.Decoder(_Ids)


class UnavailableError(RuntimeError):
    """The broker did not take the event."""


class EventProducer:
    """A producer, made with the first message, so that lists are served without a broker."""

    def __init__(self, kafka: Kafka, parser: EventParser) -> None:
        self._kafka, self._parser = kafka, parser
        self._producer: KafkaProducer | None = None
        self._lock, self._missed_at = threading.Lock(), -math.inf
        # Of its own: what waits for a broker must not keep others from running.
        self._threads = ThreadPoolExecutor(4, "event-producer")

    async def put(self, raw: bytes) -> Accepted:
        """Validate one event as the job will, put it on the topic, and wait for all replicas to have it. An event
        without `event_id` gets one, one without `timestamp` the time of now; unknown fields stay.

        Raises MessageError where the event is not valid, and UnavailableError.
        """
        now = int(time.time() * 1000)
        decode(_ids, raw, sys.maxsize)
        raw = _completed(raw, now)
        event = self._parser.parse(raw, now)
        placed = await self.send(self._kafka.events, event.user_id, raw)
        return Accepted(event.event_id, placed.partition, placed.offset)

    async def send(self, topic: str, key: str, value: bytes | None) -> Any:
        """Put a message on the topic as it is, and wait for all replicas to have it; returns its place. Raises
        UnavailableError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        try:
            async with asyncio.timeout(_TIMEOUT_MS / 1000 + 1):
                # In a thread: without a broker the producer waits for one.
                send = partial(self._send, topic, key.encode(), value, loop, answer)
                await loop.run_in_executor(self._threads, send)
                return await answer
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(f"The broker did not take the message: {error!r}") from error

    def close(self) -> None:
        """Send what waits, and let go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._producer is not None:
            self._producer.close(timeout=5)

    def _send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[Any]",
    ) -> None:
        with self._lock:
            if self._producer is None:
                # Whoever waited for the lock need not try again at once.
                if time.monotonic() < self._missed_at + 1:
                    raise UnavailableError("The broker does not answer.")
                if not reachable(self._kafka):
                    self._missed_at = time.monotonic()
                    raise UnavailableError("The broker does not answer.")
                self._producer = KafkaProducer(
                    **self._kafka.python_client(),
                    acks="all",
                    bootstrap_timeout_ms=_TIMEOUT_MS // 2,
                    max_block_ms=_TIMEOUT_MS,
                    delivery_timeout_ms=_TIMEOUT_MS,
                    request_timeout_ms=_TIMEOUT_MS // 2,
                )
        sent = self._producer.send(topic, value, key=key)
        sent.add_callback(lambda placed: loop.call_soon_threadsafe(_settle, answer, placed))
        sent.add_errback(lambda error: loop.call_soon_threadsafe(_settle, answer, error))


def _settle(answer: "asyncio.Future[Any]", result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _completed(raw: bytes, now: int) -> bytes:
    """The event with what it lacks of id and time."""
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    missing: dict[str, Any] = {}
    if "event_id" not in fields:
        missing["event_id"] = uuid4().hex
    if "timestamp" not in fields:
        missing["timestamp"] = now
    return msgspec.json.encode(fields | missing) if missing else raw
