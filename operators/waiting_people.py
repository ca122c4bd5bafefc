"""Who waits for a list, each once, in the order in which they came."""

from collections import OrderedDict
from itertools import chain
from typing import NamedTuple

import msgspec
from pyflink.datastream.state import ListState

from model.snapshot import Snapshot, unpack_snapshot

_ENTRY = 512
Request = tuple[Snapshot, bytes]
"""A snapshot, and the same packed."""


class Waiting(NamedTuple):
    """When the first event that a person waits for was appended, and the packed snapshot of the newest."""

    since: int
    packed: bytes


class WaitingPeople:
    """The people of one shard. `state` is the shard's: `keep` and `restored` are to be called under its key. It holds
    lists of packed snapshots, of which the last of each person counts, and may hold some of people who wait no more.
    """

    def __init__(self, state: ListState) -> None:
        self._state = state
        self._queue: OrderedDict[str, Waiting] = OrderedDict()
        # Whose snapshots the state holds, and whether somebody of them is to be forgotten.
        self._kept: list[str] = []
        self._anew = False

    def __len__(self) -> int:
        return len(self._queue)

    def restored(self) -> list[Request]:
        """What the state holds after a start, oldest first: erasures too. It is to be put once more."""
        entries = (msgspec.msgpack.decode(entry, type=list[bytes]) for entry in self._state.get() or ())
        requests = [(unpack_snapshot(request), request) for request in chain.from_iterable(entries)]
        self._kept = [snapshot.user_id for snapshot, _ in requests]
        return requests

    def put(self, snapshot: Snapshot, packed: bytes) -> bool:
        """Let the person wait for a list of this, at the place where they wait already; returns whether they do."""
        before = self._queue.get(snapshot.user_id)
        since = snapshot.appended_at if before is None else before.since
        self._queue[snapshot.user_id] = Waiting(since, packed)
        return before is not None

    def forget(self, user: str) -> None:
        """Whether they wait or not: the state will hold nothing of them once `keep` has been called."""
        self._queue.pop(user, None)
        self._anew |= user in self._kept

    def take(self, most: int) -> list[Waiting]:
        """Those who came first, who wait no more."""
        return [self._queue.popitem(last=False)[1] for _ in range(min(len(self._queue), most))]

    def keep(self, came: list[Request]) -> None:
        """Let the state hold who waits, after these came: add those of them who do, or write all, where it would hold
        mostly what is out of date, or somebody who is to be forgotten."""
        anew, self._anew = self._anew, False
        if not self._queue:
            if self._kept:
                self._state.clear()
                self._kept = []
            return
        waits = [(snapshot.user_id, packed) for snapshot, packed in came if snapshot.user_id in self._queue]
        # But for those of whom something newer came.
        added = [(user, packed) for user, packed in waits if self._queue[user].packed is packed]
        if not anew and len(self._kept) + len(added) <= 2 * len(self._queue) + _ENTRY:
            if added:
                self._state.add(msgspec.msgpack.encode([packed for _, packed in added]))
                self._kept.extend(user for user, _ in added)
            return
        packed = [waiting.packed for waiting in self._queue.values()]
        entries = (packed[n : n + _ENTRY] for n in range(0, len(packed), _ENTRY))
        self._state.update([msgspec.msgpack.encode(entry) for entry in entries])
        self._kept = list(self._queue)
