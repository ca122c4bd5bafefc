"""`headrace bench NAME`: a benchmark of `bench/` by its name."""

import importlib
import json
from typing import Annotated

import typer
from rich.table import Table

from cli.common import DATA, REPOSITORY, Data, Json, console, progress

_HELP = (
    "floor: the full job against the same pipe with nothing in it. "
    "freshness-gain: what it is worth that model and profiles learn at once."
)


def bench(
    name: Annotated[str, typer.Argument(help=_HELP)],
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Run a benchmark: a table, or one JSON object."""
    modules = {path.stem.replace("_", "-"): path.stem for path in (REPOSITORY / "bench").glob("*.py")}
    known = sorted(name for name, module in modules.items() if not module.endswith(("_job", "__init__")))
    if name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    with progress.status(f"Benchmark {name}"):
        figures: dict[str, float | list[float]] = importlib.import_module(f"bench.{modules[name]}").run(data)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for key, value in figures.items():
        values = value if isinstance(value, list) else [value]
        table.add_row(key, ", ".join(f"{v:,.3f}" if isinstance(v, float) else str(v) for v in values))
    console.print(table)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Development")(bench)
