"""The load of the fault suite: seeded events of a shop, sent doubled and shuffled, some of them malformed."""

import random
import threading
import time
from typing import Any

import msgspec

USERS, ITEMS = 200, 300
POISON = "poison"
"""The item that the model of `poisoned_job.py` fails at."""
MALFORMED = "malformed"
"""The Kafka header of what must become a dead letter. The job does not read headers."""
_SHUFFLED = 40
_DAY_MS = 86_400_000
_TYPES = ("view", "view", "view", "view", "add_to_cart", "purchase", "favorite", "search", "impression")


class Load(threading.Thread):
    """Sends `rate` messages a second until `stop`. Each event is sent one to three times, among the copies of others;
    one of a hundred messages is malformed. `rate` may be changed while it runs."""

    def __init__(self, bootstrap_servers: str, seed: int, rate: float) -> None:
        super().__init__(daemon=True)
        from kafka import KafkaProducer

        self.rate = rate
        self.sent_at: dict[str, float] = {}
        """Event id to `time.monotonic()` of its first sending."""
        self.failure: BaseException | None = None
        self._random = random.Random(seed)
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5, acks="all")
        self._shuffled: list[tuple[str, str | None, bytes]] = []
        self._asked: list[str] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._number = 0

    def run(self) -> None:
        """Send, at the rate, until stopped."""
        due = time.monotonic()
        try:
            while not self._stopped.is_set():
                self._one()
                due = max(due + 1 / self.rate, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
        except Exception as error:
            self.failure = error

    def stop(self) -> None:
        """End the stream with one sound event of every user, after which nothing is sent."""
        self._stopped.set()
        self.join()
        while self._shuffled:
            self._send(*self._shuffled.pop())
        for user in range(USERS):
            self._send(*self._event(f"u{user}", "view", self._item(), int(time.time() * 1000)))
        self._producer.flush()
        self._producer.close()

    def poison(self, count: int) -> None:
        """Let the next `count` events be about an item that the models fail at."""
        self._ask([POISON] * count)

    def wrong_clocks(self, count: int) -> None:
        """Let the next `count` events have clocks that are days slow or hours fast, or in the next century."""
        self._ask(["clock"] * count)

    def _ask(self, what: list[str]) -> None:
        with self._lock:
            self._asked += what

    def _one(self) -> None:
        with self._lock:
            asked = self._asked.pop() if self._asked else None
        user, now = f"u{self._random.randrange(USERS)}", int(time.time() * 1000)
        if asked == POISON:
            made = [self._event(user, "view", POISON, now)]
        elif asked == "clock":
            slow, fast = now - self._random.randrange(2, 400) * _DAY_MS, now + self._random.randrange(_DAY_MS // 2)
            absurd = [(key, MALFORMED, value) for key, _, value in [self._event(user, "view", "i1", 2 * now)]]
            made = [self._event(user, "view", self._item(), slow), self._event(user, "view", self._item(), fast)]
            made += absurd
        elif self._random.random() < 0.01:
            made = [self._malformed(user)]
        else:
            kind = self._random.choice(_TYPES)
            made = [self._event(user, kind, self._item(), now - self._random.randrange(60_000))]
        for message in made:
            # A malformed message is one dead letter each time it is sent, so it is sent once.
            copies = 1 if message[1] else self._random.randint(1, 3)
            self._shuffled += [message] * copies
        while len(self._shuffled) > _SHUFFLED:
            place = self._random.randrange(len(self._shuffled))
            self._shuffled[place], self._shuffled[-1] = self._shuffled[-1], self._shuffled[place]
            self._send(*self._shuffled.pop())

    def _item(self) -> str:
        return f"i{int(ITEMS * self._random.random() ** 2)}"

    def _event(self, user: str, kind: str, item: str, timestamp: int) -> tuple[str, str | None, bytes]:
        self._number += 1
        fields: dict[str, Any] = {"event_id": f"e{self._number}", "user_id": user, "event_type": kind}
        fields |= {"timestamp": timestamp} | ({} if kind == "search" else {"item_id": item})
        return user, None, msgspec.json.encode(fields)

    def _malformed(self, user: str) -> tuple[str, str | None, bytes]:
        sound = self._event(user, "view", self._item(), 1_700_000_000_000)[2]
        fields = msgspec.json.decode(sound)
        faults = (
            b"",
            b"[]",
            b"\xff\xfe",
            sound[:-1],
            msgspec.json.encode(fields | {"event_type": "stare"}),
            msgspec.json.encode(fields | {"timestamp": "yesterday"}),
            msgspec.json.encode(fields | {"user_id": ""}),
            msgspec.json.encode({key: value for key, value in fields.items() if key != "item_id"}),
        )
        return user, MALFORMED, self._random.choice(faults)

    def _send(self, key: str, header: str | None, value: bytes) -> None:
        headers = [(header, b"1")] if header else []
        if not header:
            self.sent_at.setdefault(msgspec.json.decode(value)["event_id"], time.monotonic())
        self._producer.send("events", key=key.encode(), value=value, headers=headers)
