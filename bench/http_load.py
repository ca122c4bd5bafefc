"""Requests at a fixed rate over kept connections, whatever the server does: `python -m bench.http_load HOST PORT ...`.

A request's time counts from the moment at which it was due, so that a server that stalls is charged with all that
waited ("coordinated omission", Tene, "How NOT to Measure Latency", 2013).
"""

import asyncio
import gc
import random
import sys
import time
from collections import deque

import httptools
import msgspec
import uvloop

_WARM_S, _PATIENCE_S = 2.0, 1.0
_TICK_S = 0.001
"""Requests are due at ticks: an event loop's timers are no finer than a millisecond."""


class Load(msgspec.Struct):
    """What was measured: seconds from due to answered, and the answers that were not 200."""

    seconds: list[float]
    failed: int
    elapsed: float


class _Connection(asyncio.Protocol):
    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._run.free(self)

    def ask(self, due: float, request: bytes) -> None:
        self.due = due
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._run.answered(self.due, self._parser.get_status_code())
        self._run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._run.lost()


class _Run:
    def __init__(self, host: str, port: int, rate: float, seconds: float, users: int) -> None:
        self._random = random.Random(1)
        self._host, self._port, self._rate, self._seconds, self._users = host, port, rate, seconds, users
        self._free: deque[_Connection] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._count_from = 0.0
        self.load = Load([], 0, 0.0)

    async def run(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        started = time.perf_counter()
        self._count_from = started + _WARM_S
        asked = 0.0
        for tick in range(1, int((self._seconds + _WARM_S) / _TICK_S) + 1):
            due = started + tick * _TICK_S
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            while asked < tick * _TICK_S * self._rate:
                asked += 1
                user = self._random.randrange(self._users)
                path = f"/users/u{user}/recommendations?k=20"
                self._ask(due, f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        self.load.elapsed = time.perf_counter() - self._count_from
        await asyncio.sleep(_PATIENCE_S)
        # Whoever still waits was not served.
        self.load.failed += len(self._waiting) + connections - len(self._free)

    def _ask(self, due: float, request: bytes) -> None:
        if self._free:
            self._free.popleft().ask(due, request)
        else:
            self._waiting.append((due, request))

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, due: float, status: int) -> None:
        if due >= self._count_from:
            self.load.failed += status != 200
            self.load.seconds.append(time.perf_counter() - due)

    def lost(self) -> None:
        self.load.failed += 1


def main() -> None:
    """Arguments: host, port, requests a second, seconds, users, connections. Prints a Load as JSON."""
    host, port, rate, seconds, users, connections = sys.argv[1:]
    # A collection of the load tool's own would be charged to the server.
    gc.disable()
    run = _Run(host, int(port), float(rate), float(seconds), int(users))
    uvloop.run(run.run(int(connections)))
    sys.stdout.write(msgspec.json.encode(run.load).decode())


if __name__ == "__main__":
    main()
