"""Two TaskManagers for each part of the job against one, on processors that are slowed down so that none is short."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from bench.pipe import Pipe, taskmanager_of
from deploy.local.stack import Stack

EVENTS = 20_000
_SHARE, _TURN_S = 4, 0.01


def run(data: Path, events: int = EVENTS) -> dict[str, float]:
    """Events/s of the full job with one TaskManager for profiles and one for lists, and with two of each. The machine's
    cores would not do for that many, so each TaskManager runs a quarter of the time, by turns of 10 ms (SIGSTOP and
    SIGCONT): as if it had a slow processor of its own. Broker, JobManager and the learner's run as they are.

    Raises StackError where the job stands still.
    """
    stack = Stack(data / "bench", data / "jars")
    rates = {}
    try:
        stack.up(taskmanagers=_SHARE + 1, kafka_port=0, flink_port=0, metrics_port=0)
        for parallelism in (1, 2):
            os.environ["HEADRACE_FLINK__PARALLELISM"] = str(parallelism)
            pipe = Pipe(stack, Path("jobs/recommend.py"), partitions=2)
            pipe.send_catalogue()
            # What the job starts with is not to be slow, nor counted.
            pipe.send(2_000)
            job = pipe.submit()
            pipe.until_seen()
            first = pipe.sent
            over = threading.Event()
            learner = taskmanager_of(stack, job, "learner")
            slowed = [pid for pid in stack.taskmanager_pids if pid != learner]
            turns = threading.Thread(target=_take_turns, args=(slowed, over), daemon=True)
            turns.start()
            try:
                pipe.send(parallelism * events)
                pipe.until_seen()
            finally:
                over.set()
                turns.join()
            rates[parallelism] = pipe.rate(pipe.lists(), first + parallelism * events // 4, pipe.sent)
            pipe.cancel()
    finally:
        os.environ.pop("HEADRACE_FLINK__PARALLELISM", None)
        stack.down()
    return {
        "one_events_per_second": rates[1],
        "two_events_per_second": rates[2],
        "ratio": rates[2] / rates[1],
        "share_of_a_core": 1 / _SHARE,
    }


def _take_turns(pids: list[int], over: threading.Event) -> None:
    """One of the processes runs at a time, until `over`; then all do."""
    try:
        for pid in pids[1:]:
            os.kill(pid, signal.SIGSTOP)
        while not over.is_set():
            for pid, following in zip(pids, pids[1:] + pids[:1], strict=True):
                time.sleep(_TURN_S)
                os.kill(pid, signal.SIGSTOP)
                os.kill(following, signal.SIGCONT)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
