"""When the learner may take time for the network, which learns slowly and nobody waits for."""

import time


class TrainingBudget:
    """Training is put off while events are older than `target_ms`, where 0 is never, and after each time until it has
    taken no more than `share` of the time since it began."""

    def __init__(self, target_ms: int, share: float) -> None:
        self._target_ms, self._share = target_ms, share
        self._resumes_at = 0.0

    def allows(self, appended_at: int, now: int) -> bool:
        """Whether there is time for it now, in epoch milliseconds, where the newest event was appended then."""
        late = 0 < self._target_ms < now - appended_at
        return not late and time.monotonic() >= self._resumes_at

    def spent(self, seconds: float) -> None:
        """Training has just taken so long."""
        self._resumes_at = time.monotonic() + seconds / self._share - seconds
