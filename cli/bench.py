"""`headrace bench NAME`: a benchmark of `bench/` by its name."""

import importlib
import json
from typing import Annotated

import typer
from rich.table import Table

from cli.common import DATA, REPOSITORY, Data, Json, console, progress


def bench(
    name: Annotated[str, typer.Argument(help="floor: the full job against the same pipe with nothing in it.")],
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Run a benchmark: a table, or one JSON object."""
    known = sorted(
        path.stem for path in (REPOSITORY / "bench").glob("*.py") if not path.stem.endswith(("_job", "__init__"))
    )
    if name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    with progress.status(f"Benchmark {name}"):
        figures: dict[str, float] = importlib.import_module(f"bench.{name}").run(data)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for key, value in figures.items():
        table.add_row(key, f"{value:,.3f}" if isinstance(value, float) else str(value))
    console.print(table)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Development")(bench)
