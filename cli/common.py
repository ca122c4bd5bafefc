"""What several commands share: the data folder, the console, and how failures are shown."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[1]

Data = Annotated[
    Path,
    typer.Option(
        "--data", envvar="HEADRACE_DATA", help="Folder of the stack's data and logs.", show_default=".headrace"
    ),
]
"""Option `--data` of every command that touches the stack; its default is DATA."""
DATA = REPOSITORY / ".headrace"

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

console = Console()
"""Results, on standard output."""
progress = Console(stderr=True)
"""Progress and messages, on standard error, so that output can be piped."""
