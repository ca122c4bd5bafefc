"""The faults of the suite, each a function that does harm and returns when the harm is over or has shown."""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import psutil

from deploy.chaos.load import Load
from deploy.local.stack import Stack, StackError

DISK_S = 15.0
_FULL_FOR = 500
_POISONED, _WRONG = 5, 30
_NOTICED_S = 180.0


class Faults:
    """Does the faults to a stack under load. `long_s` is how long the broker stays stopped and the load tenfold."""

    def __init__(self, stack: Stack, load: Load, long_s: float) -> None:
        self._stack, self._load, self._long_s = stack, load, long_s
        self.kinds: dict[str, Callable[[], None]] = {
            **{f"kill TaskManager {n}": partial(self._kill, f"taskmanager-{n}") for n in (1, 2, 3)},
            "kill JobManager": lambda: self._kill("jobmanager"),
            "kill broker": lambda: self._process("kafka").kill(),
            "stop broker": lambda: self._freeze("kafka", self._long_s),
            "stop TaskManager": lambda: self._freeze("taskmanager-1", min(self._long_s, 20)),
            "checkpoint disk full": self._fill_disk,
            "poison": lambda: self._load.poison(_POISONED),
            "wrong clocks": lambda: self._load.wrong_clocks(_WRONG),
            "tenfold load": self._tenfold,
        }

    def _process(self, name: str) -> psutil.Process:
        return psutil.Process(self._stack.state.processes[name].pid)

    def _kill(self, name: str) -> None:
        starts = self._starts()
        self._process(name).kill()
        self._await_restart(starts)

    def _await_restart(self, starts: tuple[int, int]) -> None:
        """Lists may flow on for some seconds, which says nothing: wait until the job has noticed."""
        deadline = time.monotonic() + _NOTICED_S
        while self._starts() <= starts:
            if time.monotonic() > deadline:
                raise StackError(f"The job has not started again within {_NOTICED_S:.0f} s.")
            time.sleep(0.1)

    def _starts(self) -> tuple[int, int]:
        """How often the job was submitted, and when that run last began to start again (epoch ms, 0 for never and while
        Flink does not answer)."""
        submission = self._stack.state.submission
        assert submission is not None
        try:
            times = self._stack.rest(f"/jobs/{submission.runs[-1]}")["timestamps"]
        except StackError:
            return len(submission.runs), 0
        return len(submission.runs), int(times["RESTARTING"])

    def _freeze(self, name: str, seconds: float) -> None:
        process = self._process(name)
        process.suspend()
        time.sleep(seconds)
        process.resume()

    def _fill_disk(self) -> None:
        """No checkpoint can be written, as its folder's name is taken by a file: a full disk, without root. It lasts
        until a checkpoint has failed."""
        submission = self._stack.state.submission
        assert submission is not None
        folder = self._stack.checkpoints_dir / submission.runs[-1]
        number = max((int(path.name.removeprefix("chk-")) for path in folder.glob("chk-*")), default=0)
        fillers = [folder / f"chk-{number + n}" for n in range(1, _FULL_FOR)]
        failed = self._failed_checkpoints(submission.runs[-1])
        folder.mkdir(exist_ok=True)
        for filler in fillers:
            if not filler.exists():
                filler.touch()
        deadline = time.monotonic() + _NOTICED_S
        time.sleep(DISK_S)
        while self._failed_checkpoints(submission.runs[-1]) == failed and time.monotonic() < deadline:
            time.sleep(0.5)
        for filler in fillers:
            if filler.is_file():
                filler.unlink()
        if time.monotonic() > deadline:
            raise StackError("The disk was full, and no checkpoint failed.")

    def _failed_checkpoints(self, run: str) -> int:
        return int(self._stack.rest(f"/jobs/{run}/checkpoints")["counts"]["failed"])

    def _tenfold(self) -> None:
        rate = self._load.rate
        self._load.rate = 10 * rate
        time.sleep(self._long_s)
        self._load.rate = rate


def schedule(kinds: list[str], seed: int) -> Iterator[str]:
    """The kinds over and over, each time in another order that the seed gives."""
    chance = random.Random(seed)
    while True:
        yield from chance.sample(kinds, len(kinds))
