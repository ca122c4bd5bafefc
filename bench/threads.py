"""Where an event's CPU time goes, by thread: the full job and the floor, in one run on one stack."""

from collections import defaultdict
from pathlib import Path

import psutil

from bench.pipe import Pipe
from deploy.local.stack import Stack

_SHOWN_US = 0.5
Times = dict[tuple[int, int, str], float]


def run(data: Path, events: int = 120_000) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time of an event of each job, by the part and the name of the thread, as far as Linux keeps
    it, while a full topic is read; `all` of them, the cores that they keep busy, and the events/s.

    Raises StackError where a job ends or does not come to the end of its input.
    """
    stack, figures = Stack(data / "bench", data / "jars"), dict[str, dict[str, float]]()
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        for name, job in (("floor", Path(__file__).with_name("floor_job.py")), ("full", Path("jobs/recommend.py"))):
            for part, value in _measure(stack, job, events, catalogue=name == "full").items():
                figures.setdefault(part, {})[name] = value
    finally:
        stack.down()
    return figures


def _measure(stack: Stack, job: Path, events: int, catalogue: bool) -> dict[str, float]:
    pipe = Pipe(stack, job)
    if catalogue:
        pipe.send_catalogue()
    pipe.send(events)
    pipe.submit()
    # Once it runs and is warm.
    pipe.until_seen(events // 6)
    before, lists = _times(stack), pipe.lists()
    pipe.until_seen()
    after, lists_after = _times(stack), pipe.lists()
    pipe.cancel()
    first = max(int(made.event_id or -1) for made in lists)
    began = max(made.appended_ms for made in lists)
    ended = max(made.appended_ms for made in lists_after)
    spent: dict[str, float] = defaultdict(float)
    for thread, seconds in after.items():
        spent[thread[2]] += (seconds - before.get(thread, 0.0)) * 1e6 / (events - first)
    rate = (events - first) * 1000 / max(ended - began, 1)
    shown = {name: us for name, us in sorted(spent.items(), key=lambda one: -one[1]) if us >= _SHOWN_US}
    total = sum(spent.values())
    others = {"others": total - sum(shown.values()), "all": total}
    return {**shown, **others, "busy cores": total * rate / 1e6, "events/s": rate}


def _times(stack: Stack) -> Times:
    """Seconds of CPU time of each thread of the stack, by process, number and name."""
    times: Times = {}
    for name, process in stack.state.processes.items():
        own = psutil.Process(process.pid)
        for one in (own, *own.children(recursive=True)):
            part = name.split("-")[0]
            for thread in one.threads():
                try:
                    said = Path(f"/proc/{one.pid}/task/{thread.id}/comm").read_text().strip()
                except FileNotFoundError:
                    # It has ended meanwhile.
                    continue
                times[one.pid, thread.id, f"{part}: {said}"] = thread.user_time + thread.system_time
    return times
