"""Events that come while there is no broker."""

import asyncio
import socket
import time

import pytest

from config.kafka import Kafka
from schema.errors import MessageError
from schema.event import EventParser
from serving.event_producer import EventProducer, UnavailableError

pytestmark = pytest.mark.unit
EVENT = b'{"user_id":"u","event_type":"view","item_id":"i"}'


def producer() -> EventProducer:
    """Of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return EventProducer(Kafka(bootstrap_servers=f"127.0.0.1:{free.getsockname()[1]}"), EventParser())


def test_without_a_broker_all_are_told_so_at_once() -> None:
    async def put_many() -> list[BaseException]:
        return await asyncio.gather(*(events.put(EVENT) for _ in range(12)), return_exceptions=True)  # type: ignore

    events, started = producer(), time.monotonic()
    assert {type(answer) for answer in asyncio.run(put_many())} == {UnavailableError}
    assert time.monotonic() < started + 3
    events.close()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"user_id":7,"event_type":"view","item_id":"i"}', EVENT.replace(b"view", b"stare")]
)
def test_what_is_no_event_is_refused_before_any_broker_is_asked(raw: bytes) -> None:
    events = producer()
    with pytest.raises(MessageError):
        asyncio.run(events.put(raw))
    events.close()
