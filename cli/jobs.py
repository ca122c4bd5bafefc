"""`submit`, `cancel`: the recommender's job on the local cluster."""

from pathlib import Path
from typing import Annotated

import typer

from cli.common import DATA, Data, console, progress
from deploy.local.stack import Stack


def submit(
    data: Data = DATA,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Configuration; its broker is the cluster's.")
    ] = None,
    job: Annotated[str, typer.Option(help="The job's Python file.")] = "jobs/recommend.py",
    from_savepoint: Annotated[str | None, typer.Option(help="Savepoint or checkpoint to start from.")] = None,
    drop_unknown_state: Annotated[
        bool, typer.Option("--drop-unknown-state", help="Go on without the state of operators that the job lacks.")
    ] = False,
) -> None:
    """Submit the job to the cluster and print its id. Topics of the configuration that are not there are made."""
    from config.kafka import KafkaSettings
    from config.loading import SettingsError, load
    from deploy.local.topics import create_topics, topics_of

    try:
        topics = topics_of(load(KafkaSettings, config).kafka)
    except SettingsError:
        # The job says so, with all other faults.
        topics = {}
    with progress.status("Submitting"):
        arguments = ["--config", str(config.resolve())] if config else []
        if from_savepoint and Path(from_savepoint).exists():
            # The JobManager reads it, in a folder of its own.
            from_savepoint = Path(from_savepoint).resolve().as_uri()
        stack = Stack(data)
        for topic in create_topics(stack.bootstrap_servers, topics):
            progress.print(f"Made the topic {topic}.")
        slots = stack.rest("/overview")
        run = stack.submit(Path(job), *arguments, savepoint=from_savepoint, drop_unknown_state=drop_unknown_state)
        console.print(run, soft_wrap=True)
        if (missing := stack.slots_of(run) - slots["slots-available"]) > 0:
            progress.print(
                f"The job waits for {missing} more of its slots: `headrace up --taskmanagers "
                f"{slots['slots-total'] + missing}` starts them.",
                soft_wrap=True,
            )


def cancel(
    data: Data = DATA,
    savepoint: Annotated[bool, typer.Option(help="Stop with a savepoint and print its path.")] = False,
) -> None:
    """Cancel every job that has not ended."""
    stack = Stack(data)
    running = stack.running_jobs()
    if not running:
        progress.print("No job is running.")
    for job in running:
        with progress.status(f"Stopping {job}"):
            if savepoint:
                console.print(stack.stop_with_savepoint(job), soft_wrap=True)
            else:
                stack.cancel(job)
                progress.print(f"Cancelled {job}.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (submit, cancel):
        app.command(rich_help_panel="The job")(command)
