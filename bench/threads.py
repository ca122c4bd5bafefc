"""Where an event's CPU time goes, by thread: the full job and the floor, in one run on one stack."""

from collections import defaultdict
from pathlib import Path

import psutil

from bench.pipe import Pipe
from deploy.local.stack import Stack

_SHOWN_US = 0.5
_LIVE_SHARE, _LIVE_S = 0.6, 20
Times = dict[tuple[int, int, str], float]


def run(data: Path, events: int = 120_000) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time of an event of each job, by the part and the name of the thread, as far as Linux keeps
    it, while a full topic is read, and of the full job while events come at `_LIVE_SHARE` of that rate; `all` of them,
    the cores that they keep busy, lists an event, and the events/s.

    Raises StackError where a job ends or does not come to the end of its input.
    """
    stack, figures = Stack(data / "bench", data / "jars"), dict[str, dict[str, float]]()
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        for name, job in (("floor", Path(__file__).with_name("floor_job.py")), ("full", Path("jobs/recommend.py"))):
            pipe = Pipe(stack, job)
            if name == "full":
                pipe.send_catalogue()
            pipe.send(events)
            pipe.submit()
            # Once it runs and is warm.
            pipe.until_seen(events // 6)
            columns = {name: _spent(stack, pipe)}
            if name == "full":
                rate = _LIVE_SHARE * columns[name]["events/s"]
                pipe.send(round(rate * _LIVE_S), rate=rate)
                columns["live"] = _spent(stack, pipe, rate)
            pipe.cancel()
            for column, parts in columns.items():
                for part, value in parts.items():
                    figures.setdefault(part, {})[column] = value
    finally:
        stack.down()
    return figures


def _spent(stack: Stack, pipe: Pipe, rate: float = 0) -> dict[str, float]:
    """The figures of the events from now until all that were sent are seen, or of others that come at `rate`."""
    # Reading the lists costs the broker something, so it is done before.
    lists = pipe.lists()
    before = _times(stack)
    if rate:
        pipe.send(round(rate * _LIVE_S), rate=rate)
    pipe.until_seen()
    after, lists_after = _times(stack), pipe.lists()
    new = [made.appended_ms for made in lists_after[len(lists) :]]
    events = pipe.sent - 1 - max(int(made.event_id or -1) for made in lists)
    spent: dict[str, float] = defaultdict(float)
    for thread, seconds in after.items():
        spent[thread[2]] += (seconds - before.get(thread, 0.0)) * 1e6 / events
    per_second = events * 1000 / max(max(new) - min(new), 1)
    shown = {name: us for name, us in sorted(spent.items(), key=lambda one: -one[1]) if us >= _SHOWN_US}
    total = sum(spent.values())
    return {
        **shown,
        "others": total - sum(shown.values()),
        "all": total,
        "busy cores": total * per_second / 1e6,
        "lists an event": len(new) / events,
        "events/s": per_second,
    }


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
