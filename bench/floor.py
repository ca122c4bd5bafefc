"""The full job against the floor: the same pipe with nothing in it, in one run on one stack."""

from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.pipe import ITEMS, Pipe
from deploy.local.stack import Stack

_BUSY_SHARE, _BUSY_S = 0.8, 10


def run(
    data: Path, preload: int = 200_000, live: int = 30_000, rate: float = 1000, rounds: int = 3
) -> dict[str, float | list[float]]:
    """Both jobs on fresh topics, by turns: events/s over a preloaded topic, freshness in milliseconds at `rate`
    events/s, and of the full job at 80 % of its own events/s (`busy`). `lists_per_event` are those of the preloaded
    topic: where the job is behind, a list stands for several events. A shared machine changes its speed from minute to
    minute, so each figure is the median of the rounds, and `ratio` the median of the rounds' `ratios`.

    Raises StackError where a job ends or does not come to the end of its input.
    """
    stack = Stack(data / "bench", data / "jars")
    jobs = {"floor": Path(__file__).with_name("floor_job.py"), "full": Path("jobs/recommend.py")}
    measured: dict[str, list[float]] = defaultdict(list)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        for _ in range(rounds):
            for name, job in jobs.items():
                for key, value in _measure(stack, name, job, preload, live, rate).items():
                    measured[f"{name}_{key}"].append(value)
    finally:
        stack.down()
    pairs = zip(measured["full_events_per_second"], measured["floor_events_per_second"], strict=True)
    ratios = [full / floor for full, floor in pairs]
    figures = {key: median(values) for key, values in measured.items()}
    return {
        "items": ITEMS,
        "dimensions": 64,
        "k": 20,
        "rate": rate,
        **figures,
        "ratio": median(ratios),
        "ratios": ratios,
    }


def _measure(stack: Stack, name: str, job: Path, preload: int, live: int, rate: float) -> dict[str, float]:
    pipe = Pipe(stack, job)
    if name == "full":
        pipe.send_catalogue()
    pipe.send(preload)
    pipe.submit()
    pipe.until_seen()
    made = pipe.lists()
    top = pipe.rate(made, preload // 4, preload)
    pipe.send(live, rate=rate)
    pipe.until_seen()
    busy = pipe.sent
    if name == "full":
        pipe.send(round(_BUSY_SHARE * top * _BUSY_S), rate=_BUSY_SHARE * top)
        pipe.until_seen()
    pipe.cancel()
    lists = pipe.lists()
    # Without the first third of each stretch, in which what was before settles.
    p50, p99 = pipe.freshness(lists, preload + live // 3, busy)
    figures = {
        "events_per_second": top,
        "lists_per_event": len(made) / preload,
        "freshness_ms_p50": p50,
        "freshness_ms_p99": p99,
    }
    if name == "full":
        p50, p99 = pipe.freshness(lists, busy + (pipe.sent - busy) // 3, pipe.sent)
        figures |= {"busy_freshness_ms_p50": p50, "busy_freshness_ms_p99": p99}
    return figures
