"""`up`, `down`, `status`: the broker and the Flink cluster on this machine."""

import threading
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.common import DATA, Data, Json, console, progress
from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics


def up(
    data: Data = DATA,
    taskmanagers: Annotated[int, typer.Option(min=1, help="TaskManagers, one slot each; the job takes three.")] = 3,
    kafka_port: Annotated[int, typer.Option(help="The broker's port; 0 for any free one.")] = 9092,
    flink_port: Annotated[int, typer.Option(help="Port of Flink's REST API and web page; 0 for any free one.")] = 8081,
    metrics_port: Annotated[int, typer.Option(help="First of the Prometheus ports; 0 for any free ones.")] = 9249,
    supervise: Annotated[
        bool, typer.Option(help="Start again what dies, and the submitted job from its newest checkpoint.")
    ] = True,
    serve: Annotated[bool, typer.Option("--serve", help="Serve lists over HTTP too, and the page.")] = False,
    serving_port: Annotated[int, typer.Option(help="Port of the HTTP API; 0 for any free one.")] = 8000,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of `events`, where it does not exist.")] = 4,
) -> None:
    """Start the broker and the Flink cluster, or what of them is not alive, and create the topics."""
    stack = Stack(data)
    with progress.status("Starting") as spinner:
        ports = kafka_port, flink_port, metrics_port
        stack.up(taskmanagers, *ports, lambda what: spinner.update(f"Starting: {what}"), supervise)
        spinner.update("Starting: topics")
        create_topics(stack.bootstrap_servers, default_topics(partitions))
        if serve and stack.serving_url is None:
            spinner.update("Starting: serving")
            stack.serve(serving_port)
    _show(stack.status())


def down(data: Data = DATA) -> None:
    """Stop everything that `up` started. Data, checkpoints and logs stay."""
    with progress.status("Stopping"):
        Stack(data).down()
    progress.print("Stopped.")


def status(data: Data = DATA, json: Json = False) -> None:
    """Show processes, ports, slots and jobs. Exit status 3 where something is not running."""
    found = Stack(data).status()
    if json:
        console.print_json(data=found)
    else:
        _show(found)
    if not found["running"]:
        raise typer.Exit(3)


def watch(data: Data = DATA) -> None:
    """Supervise, as `up` has it done: start again what dies, and the submitted job from its newest checkpoint."""
    Stack(data).supervise(threading.Event(), progress.log)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (up, down, status, watch):
        app.command(rich_help_panel="The stack")(command)


def _show(status: dict[str, Any]) -> None:
    if not status["processes"]:
        console.print(f"Nothing runs from {status['data']}.")
        return
    table = Table("Process", "Pid", "State", "Memory", "Metrics port")
    for process in status["processes"]:
        state = "[green]alive[/green]" if process["alive"] else "[red]dead[/red]"
        port = str(process["metrics_port"] or "")
        table.add_row(process["name"], str(process["pid"]), state, f"{process['memory_mb']} MB", port)
    console.print(table)
    slots = f", {status['slots_available']} of {status['slots_total']} slots free" if "slots_total" in status else ""
    console.print(f"Kafka {status['bootstrap_servers']}, Flink {status['flink_url']}{slots}", soft_wrap=True)
    if status["serving_url"]:
        console.print(f"Lists {status['serving_url']}", soft_wrap=True)
    console.print(f"Logs in {status['data']}/logs", soft_wrap=True)
    if status["jobs"]:
        jobs = Table("Job", "Name", "State")
        for job in status["jobs"]:
            jobs.add_row(job["jid"], job["name"], job["state"])
        console.print(jobs)
