"""A micro-batch that grows with what is to catch up on."""

_LONGEST_WAIT = 4


class CatchUp:
    """When each shard's batches are to be served. Times are epoch milliseconds.

    A shard whose events come older than `target_ms` is behind, and several of its batches taken together cost less than
    one by one: they wait for a quarter of that age, at most for four times the target. So little is lost by waiting
    where little was lost before, and the batch grows with the backlog. A target of 0 never waits.
    """

    def __init__(self, target_ms: int) -> None:
        self._target_ms = target_ms
        self._due: dict[int, int] = {}

    def due(self, shard: int, appended_at: int, now: int) -> int:
        """When the shard's batch with an event that was appended then is to be served: `now` at the soonest, and with
        those that wait already."""
        if shard not in self._due:
            age = now - appended_at
            wait = min(age // 4, _LONGEST_WAIT * self._target_ms) if age > self._target_ms else 0
            self._due[shard] = now + wait
        # A clock that was set back must not make it longer.
        self._due[shard] = min(self._due[shard], now + _LONGEST_WAIT * self._target_ms)
        return max(self._due[shard], now)

    def served(self, shard: int) -> None:
        """Nothing of the shard waits any longer."""
        self._due.pop(shard, None)
