"""A million people and a million items stream through as fast as the job takes them: nothing lost, memory bounded."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from bench.pipe import checkpointed_bytes
from deploy.local.stack import Stack, StackError
from deploy.local.topics import create_topics, default_topics

MAX_ITEMS = 20_000
BOUNDS_MB = {"kafka": 1_536, "jobmanager": 1_280, "taskmanager": 4_096}
"""What each process may hold. A TaskManager is a JVM of 2,560 MB by its configuration, and a scorer's torch, numba and
model beside it."""
_START, _STEP_S, _DEAD_S = 1_600_000_000_000, 1.0, 120.0


def run(data: Path, events: int = 1_000_000, max_items: int = MAX_ITEMS) -> dict[str, Any]:
    """Sends `events` events, each of a person and an item never seen before, and waits until all are taken; the job
    may know `max_items` items. Figures: events/s, the largest memory of each process in MB beside its bound, and the
    size of the state in bytes a user.

    Raises StackError where the job stands still.
    """
    stack = Stack(data / "bench", data / "jars")
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        return stream(stack, events, max_items)
    finally:
        stack.down()


def stream(stack: Stack, events: int, max_items: int) -> dict[str, Any]:
    """The same on a stack that runs, without topics."""
    os.environ |= {"HEADRACE_MODELS__MAX_ITEMS": str(max_items)}
    try:
        create_topics(stack.bootstrap_servers, default_topics())
        job = stack.submit(Path("jobs/recommend.py"))
    finally:
        os.environ.pop("HEADRACE_MODELS__MAX_ITEMS", None)
    memory = Memory(stack)
    memory.start()
    started = time.monotonic()
    sender = threading.Thread(target=_send, args=(stack.bootstrap_servers, events), daemon=True)
    sender.start()
    taken = _until_taken(stack, events)
    seconds = time.monotonic() - started
    size = checkpointed_bytes(stack, job)
    memory.stop()
    restarts = len(stack.rest(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"])
    stack.cancel(job)
    return {
        "events": events,
        "users": events,
        "items": events,
        "max_items": max_items,
        "taken": taken,
        "lost": events - taken,
        "restarts": restarts,
        "events_per_second": events / seconds,
        "state_bytes_per_user": size / events,
        "within_bounds": all(memory.largest_mb[name] <= bound for name, bound in BOUNDS_MB.items()),
        **{f"{name}_mb": {"largest": memory.largest_mb[name], "bound": bound} for name, bound in BOUNDS_MB.items()},
    }


class Memory(threading.Thread):
    """The largest resident memory of each kind of process, in MB, taken every second."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.largest_mb = dict.fromkeys(BOUNDS_MB, 0)
        self._stack, self._stopped = stack, threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopped.wait(_STEP_S):
            for name, process in self._stack.processes():
                try:
                    kind = name.rstrip("0123456789").rstrip("-")
                    size = process.memory_info().rss >> 20
                except psutil.NoSuchProcess:
                    continue
                if kind in self.largest_mb:
                    self.largest_mb[kind] = max(self.largest_mb[kind], size)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()


def _send(bootstrap_servers: str, events: int) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=20)
    for number in range(events):
        event = {"event_id": str(number), "user_id": f"u{number}", "event_type": "view", "item_id": f"i{number}"}
        producer.send("events", json.dumps(event | {"timestamp": _START + number}).encode())
    producer.flush()
    producer.close()


def _until_taken(stack: Stack, events: int) -> int:
    """How many events the learner has learned, once that is all or has not changed for two minutes."""
    taken, changed = 0, time.monotonic()
    while taken < events:
        time.sleep(_STEP_S)
        if time.monotonic() > changed + _DEAD_S:
            raise StackError(f"{taken} of {events} events were learned, then none for {_DEAD_S:.0f} s.")
        newest = _counter(stack, "interactions_learned")
        if newest > taken:
            taken, changed = newest, time.monotonic()
    return taken


def _counter(stack: Stack, name: str) -> int:
    import urllib.request

    for process, port in stack.metrics_ports.items():
        if process.startswith("taskmanager-"):
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            for line in page.splitlines():
                if f"headrace_{name}{{" in line:
                    return int(float(line.rsplit(" ", 1)[1]))
    return 0
