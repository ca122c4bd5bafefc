"""`serve`: lists over HTTP, and the page."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.common import progress

if TYPE_CHECKING:
    from serving.service import Service


def serve(
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Configuration (TOML).")] = None,
    port: Annotated[int | None, typer.Option(help="Port, before the configuration's; 0 for any free one.")] = None,
) -> None:
    """Serve lists, items and the page over HTTP from the topics, and take events. Ends with Ctrl-C."""
    from config.loading import SettingsError, load
    from serving.server import run
    from serving.settings import ServingSettings

    if port is not None:
        os.environ["HEADRACE_SERVING__PORT"] = str(port)
    try:
        settings = load(ServingSettings, config)
    except SettingsError as error:
        progress.print(str(error), soft_wrap=True)
        raise typer.Exit(1) from None
    sys.exit(run(settings, _show))


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="The stack")(serve)


def _show(service: "Service", address: str) -> None:
    """Where it serves, and how far the view is behind the topics."""
    progress.print(f"Serving at {address}", soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    follower = service.follower
    with Progress(*columns, console=progress, transient=True, disable=not progress.is_terminal) as bar:
        task = bar.add_task("Reading the topics", total=None)
        most = 0
        while follower.behind != 0 and follower.is_alive():
            if follower.behind is not None:
                most = max(most, follower.behind)
                bar.update(task, total=most, completed=most - follower.behind)
            time.sleep(0.1)
    progress.print(f"The view holds the lists of {service.view.users} users, and {service.view.items} items.")
