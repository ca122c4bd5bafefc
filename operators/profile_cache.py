"""The packed profiles written last, so that a person's next click need not ask RocksDB for what was just written."""

from collections import OrderedDict


class ProfileCache:
    """Least recently written first out, beyond `max_bytes` of packed profiles. It is never ahead of the keyed state nor
    behind it: who updates or clears the state tells the cache, which lives and dies with the operator. An entry is
    forgotten `ttl_ms` after it was written, as the state's own time to live says."""

    def __init__(self, max_bytes: int, ttl_ms: int) -> None:
        self._max_bytes, self._ttl_ms = max_bytes, ttl_ms
        self._entries: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, user_id: str, now_ms: int) -> bytes | None:
        """The user's packed profile, None where only the state can tell."""
        written_ms, packed = self._entries.get(user_id, (0, None))
        return packed if now_ms - written_ms < self._ttl_ms else None

    def put(self, user_id: str, now_ms: int, packed: bytes) -> None:
        """Keep what was written to the state."""
        self.remove(user_id)
        self._entries[user_id] = now_ms, packed
        self._bytes += len(packed)
        while self._bytes > self._max_bytes:
            _, (_, oldest) = self._entries.popitem(last=False)
            self._bytes -= len(oldest)

    def remove_all(self, prefix: str) -> None:
        """Forget every entry whose key begins so."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self.remove(key)

    def remove(self, user_id: str) -> None:
        """Forget the user, whose state is cleared."""
        _, packed = self._entries.pop(user_id, (0, b""))
        self._bytes -= len(packed)
