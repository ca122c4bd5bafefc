"""Who waits for which list, in the event loop of the server."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Live:
    """Wakes those that wait when lists change."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def waiting_for(self, *users: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever a list of these users changes; who waits clears it."""
        event = asyncio.Event()
        for user in users:
            self._waiting[user].add(event)
        try:
            yield event
        finally:
            for user in users:
                self._waiting[user].discard(event)
                if not self._waiting[user]:
                    del self._waiting[user]

    def changed(self, users: Iterable[str]) -> None:
        """Wake who waits for these users."""
        for user in users:
            for event in self._waiting.get(user, ()):
                event.set()

    def waits(self, users: Iterable[str]) -> bool:
        """Whether anybody waits for one of them; may be asked by another thread."""
        return any(user in self._waiting for user in users)
