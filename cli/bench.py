"""`headrace bench NAME`: a benchmark of `bench/` by its name."""

import importlib
import inspect
import json
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.common import DATA, REPOSITORY, Data, Json, console, progress

_HELP = (
    "floor: the full job against the same pipe with nothing in it. "
    "freshness-gain: what it is worth that model and profiles learn at once. "
    "quality: our lists beside those of other libraries. "
    "linear-item-model: what it costs by the size of the catalogue. "
    "factorization-refit: vectors that follow the stream against vectors solved again. "
    "overload: a million people and items stream through, in bounded memory. "
    "serving: how long lists take over HTTP. "
    "threads: where an event's CPU time goes, in the full job and in the floor. "
    "profile: an event's way through the profile, step by step. "
    "scorer: a list's cost by the size of the catalogue. "
    "learner: interactions learned a second, beside other libraries. "
    "state: a million users, and recovery with them. "
    "scale-out: two TaskManagers for each part against one. "
    "bootstrap: a history into model and profiles. "
    "deep: each source alone and in the blend, by how much is known of people and items. "
    "leave-one-out: the sequence networks offline, by the protocol of their papers (hours). "
    "position-bias: what weighing clicks by how seldom their place is seen is worth, where tastes are known. "
    "off-policy: what is estimated of a policy beside what it got, on the Open Bandit data. "
    "behaviour: streamed sessions, funnels and trends against a recount. "
    "business: every mark of rules, experiments, behaviour and marketing beside its figure. "
    "all: every mark of speed and growth beside its figure (half an hour)."
)


def bench(
    name: Annotated[str, typer.Argument(help=_HELP)],
    data: Data = DATA,
    device: Annotated[str | None, typer.Option(help="cpu or cuda, of the benchmarks that take one: scorer.")] = None,
    as_json: Json = False,
) -> None:
    """Run a benchmark: a table, or one JSON object."""
    modules = {path.stem.replace("_", "-"): path.stem for path in (REPOSITORY / "bench").glob("*.py")}
    known = sorted(
        name
        for name, module in modules.items()
        if not module.endswith(("_job", "peers", "http_load", "pipe", "__init__"))
    )
    if name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    run = importlib.import_module(f"bench.{modules[name]}").run
    if device is not None and "device" not in inspect.signature(run).parameters:
        raise typer.BadParameter(f"{name} takes no --device")
    with progress.status(f"Benchmark {name}"):
        figures: dict[str, Any] = run(data, **({} if device is None else {"device": device}))
    if as_json:
        print(json.dumps(figures))
        return
    if "marks" in figures:
        _show_marks(figures["marks"])
        return
    rows = {key: value if isinstance(value, dict) else {"value": value} for key, value in figures.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("", *columns)
    for key, row in rows.items():
        table.add_row(key, *(_text(row.get(column, "")) for column in columns))
    console.print(table)


def _show_marks(marks: list[dict[str, Any]]) -> None:
    table = Table("What", "Figure", "Mark", "")
    for mark in marks:
        bound = "at least" if mark["more_is_better"] else "at most"
        value = "-" if mark["value"] is None else f"{mark['value']:.3g}"
        table.add_row(mark["name"], value, f"{bound} {mark['mark']:g}", "met" if mark["met"] else "")
    console.print(table)


def _text(value: float | str | list[float]) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return (f"{value:,.4f}" if value < 100 else f"{value:,.0f}") if isinstance(value, float) else str(value)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Development")(bench)
