"""`test`: every check of the project, the same here as in CI."""

import os
import subprocess
import sys

import typer

from cli.common import REPOSITORY, progress


def test(context: typer.Context) -> None:
    """Lint, check formatting and types, build the docs, run the tests, unit tests first. Stops at the first failure.

    Arguments go to pytest and replace its two runs by one: `headrace test tests/unit -k topics`.
    """
    parallel, by_file = ["pytest", "--numprocesses=2"], ["--dist=loadfile", "--no-loadscope-reorder"]
    runs = (
        [["pytest", *context.args]]
        if context.args
        else [[*parallel, "tests/unit"], [*parallel, *by_file, "--ignore=tests/unit"]]
    )
    for command in [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["mkdocs", "build", "--strict", "-q"],
        *runs,
    ]:
        progress.rule(" ".join(command), align="left")
        # Its theme would tell of its successor each time.
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, env=environment, check=False)
        status = done.returncode
        if status:
            raise typer.Exit(status)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    passing = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(rich_help_panel="Development", context_settings=passing)(test)
