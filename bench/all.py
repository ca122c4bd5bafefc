"""All marks of speed and growth, each beside its figure."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import bootstrap, floor, learner, scale_out, scorer, state
from cli.common import progress


def run(data: Path) -> dict[str, Any]:
    """The table of marks, from one run of each benchmark; also in `data`/bench/marks.json, and as a plot beside it. A
    mark's `name` says what is measured and whether more or less is better."""
    marks: list[dict[str, Any]] = []

    def add(name: str, value: float, mark: float, more: bool) -> None:
        met = value >= mark if more else value <= mark
        marks.append({"name": name, "value": value, "mark": mark, "more_is_better": more, "met": bool(met)})

    def measured(benchmark: Callable[[Path], Any]) -> Any:
        progress.print(f"{benchmark.__module__} ...")
        return benchmark(data)

    job = measured(floor.run)
    add("throughput: full job / floor", job["ratio"], 0.7, more=True)
    add("freshness at 1,000 events/s, p50 ms", job["full_freshness_ms_p50"], 40, more=False)
    add("freshness at 1,000 events/s, p99 ms", job["full_freshness_ms_p99"], 100, more=False)
    for share in ("p50", "p99"):
        ratio = job[f"full_freshness_ms_{share}"] / job[f"floor_freshness_ms_{share}"]
        add(f"freshness at 1,000 events/s, {share}, full / floor", ratio, 2, more=False)
    add("freshness at 80 % of top rate, p99 ms", job["full_busy_freshness_ms_p99"], 500, more=False)
    of_state = measured(state.run)
    add("growth in users: 1,000,000 / 10,000", of_state["users_ratio"], 0.8, more=True)
    lists = measured(scorer.run)
    most = lists["1,000,000 items"]
    add("growth in items: 1,000,000 / 10,000", lists["growth"]["us_a_list"], 10, more=False)
    add("growth in items: recall of the exact top 20", most["recall"], 0.98, more=True)
    add("scorer / a plain copy, 10,000 items", lists["10,000 items"]["roofline"], 0.5, more=True)
    add("learner / best peer", measured(learner.run)["ratio"]["interactions_per_second"], 5, more=True)
    add("profile: bytes of state / packed", of_state["profile_ratio"], 1.3, more=False)
    add("scale-out: 2 TaskManagers / 1", measured(scale_out.run)["ratio"], 1.7, more=True)
    restart = of_state["recovery_s"] - of_state["detection_s"]
    add("restart with 1,000,000 users, s after detection", restart, 15, more=False)
    add(
        "bootstrap / streaming",
        measured(bootstrap.run)["events_per_second"] / job["full_events_per_second"],
        5,
        more=True,
    )
    found = {"machine": platform.processor() or platform.machine(), "marks": marks}
    file = data / "bench" / "marks.json"
    file.write_text(json.dumps(found, indent=1))
    _plot(marks, file.with_suffix(".png"))
    return found


def _plot(marks: list[dict[str, Any]], file: Path) -> None:
    """How far each figure is from its mark: above 1 it is met."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shares = [m["value"] / m["mark"] if m["more_is_better"] else m["mark"] / m["value"] for m in marks]
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(marks) + 1))
    axes.barh([m["name"] for m in marks], shares, color=["#2a7" if m["met"] else "#c52" for m in marks])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("figure relative to its mark, right of the line is met")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
