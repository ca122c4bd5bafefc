"""`consume`: recommendation lists as they are published."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from cli.common import DATA, Data, Json, console
from deploy.local.stack import Stack, StackError


def consume(
    data: Data = DATA,
    user: Annotated[str | None, typer.Option(help="Only this user's lists.")] = None,
    topic: Annotated[str, typer.Option(help="Topic to read.")] = "recommendations",
    from_beginning: Annotated[bool, typer.Option(help="Start with what is already there.")] = False,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="End after so many messages.")] = None,
    json: Json = False,
) -> None:
    """Print recommendation lists as they arrive. Ends with --max or Ctrl-C."""
    printed = 0
    for key, value in _messages(Stack(data).bootstrap_servers, topic, from_beginning):
        if user is not None and key != user:
            continue
        if json:
            # Not through rich: one message must stay one line, unstyled.
            typer.echo(msgspec.json.encode({"key": key, "value": value}))
        elif isinstance(value, dict) and "items" in value:
            console.print(_list_table(value))
        else:
            console.print(key, "erased" if value is None else value)
        printed += 1
        if printed == maximum:
            return


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Events and lists")(consume)


def _messages(bootstrap_servers: str, topic: str, from_beginning: bool) -> Iterator[tuple[str | None, Any]]:
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    try:
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap_servers,
            group_id=None,
            auto_offset_reset="earliest" if from_beginning else "latest",
            isolation_level="read_committed",
        )
        try:
            for message in consumer:
                key = message.key.decode(errors="replace") if message.key is not None else None
                yield key, _decoded(message.value)
        finally:
            consumer.close()
    except KafkaError as error:
        raise StackError(f"The broker at {bootstrap_servers} does not give messages: {error}") from error


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value.decode(errors="replace") if value is not None else None


def _list_table(value: dict[str, Any]) -> Table:
    caption = f"{value.get('strategy', '')} · model {value.get('model_version', '?')} · {value.get('generated_at', '')}"
    table = Table("", "Item", "Score", "Source", title=f"{value.get('user_id')}", caption=caption)
    for rank, item in enumerate(value["items"], 1):
        table.add_row(str(rank), str(item.get("item_id")), f"{item.get('score', 0):.4f}", str(item.get("source", "")))
    return table
