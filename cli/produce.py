"""`produce`: a file's events into the broker."""

import csv
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import rich.progress
import typer

from cli.common import DATA, Data, progress
from deploy.local.stack import Stack, StackError

SHORT_NAMES = {"user": "user_id", "item": "item_id", "type": "event_type", "time": "timestamp"}
"""Short forms of the contract's field names, for `--map`."""

_IDS = ("event_id", "user_id", "item_id")
_NUMBERS = ("timestamp", "value", "quantity", "price")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "headrace")


def produce(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Events as JSON lines, .csv or .tsv.")],
    data: Data = DATA,
    topic: Annotated[str, typer.Option(help="Topic to write to.")] = "events",
    mapping: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,…",
            help="Foreign column names: user=…,item=…,type=…,time=…, or any field of the event contract.",
        ),
    ] = "",
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0 for as fast as possible.")] = 0,
) -> None:
    """Send a file's events to the broker, keyed by user.

    Events without an event_id get one that depends on the file's name, the line number and the content only, so that
    sending a file again repeats the same ids.
    """
    columns = parse_mapping(mapping)
    stack = Stack(data)
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    failures: list[BaseException] = []
    sent = 0
    try:
        producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all", linger_ms=5)
        with rich.progress.open(
            file, "r", encoding="utf-8", newline="", console=progress, description=file.name
        ) as lines:
            started = time.monotonic()
            for event in read_events(lines, file.name, columns):
                user = event.get("user_id")
                future = producer.send(topic, msgspec.json.encode(event), key=str(user).encode() if user else None)
                future.add_errback(failures.append)
                sent += 1
                if rate:
                    time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        producer.flush()
        producer.close()
    except KafkaError as error:
        raise StackError(f"The broker at {stack.bootstrap_servers} does not take events: {error}") from error
    if failures:
        raise StackError(f"{len(failures)} of {sent} events were not taken, first: {failures[0]}")
    progress.print(f"{sent} events sent to {topic}.")


def parse_mapping(text: str) -> dict[str, str]:
    """`user=uid,time=ts` as {source column: contract field}. Raises typer.BadParameter."""
    columns = {}
    for pair in filter(None, text.split(",")):
        field, separator, column = pair.partition("=")
        if not (field and separator and column):
            raise typer.BadParameter(f"{pair!r} is not FIELD=COLUMN", param_hint="--map")
        columns[column.strip()] = SHORT_NAMES.get(field.strip(), field.strip())
    return columns


def read_events(lines: Iterable[str], name: str, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The events of a file called `name`, fields renamed by `columns`, each with an `event_id`.

    Other columns are kept, empty CSV cells left out, timestamps passed on as they are. Raises StackError at a line
    that is no JSON object.
    """
    table = name.endswith((".csv", ".tsv"))
    for number, record in _table(lines, name) if table else _json_lines(lines):
        event = {columns.get(field, field): value for field, value in record.items()}
        for field in _NUMBERS if table else ():
            if field in event:
                event[field] = _number(event[field])
        for field in _IDS:
            if isinstance(event.get(field), int):
                event[field] = str(event[field])
        if "event_id" not in event:
            event["event_id"] = str(uuid.uuid5(_NAMESPACE, f"{name}:{number}:{record}"))
        yield event


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Events and lists")(produce)


def _table(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, delimiter="\t" if name.endswith(".tsv") else ",")
    for record in reader:
        yield reader.line_num, {field: cell for field, cell in record.items() if field and cell}


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise StackError(f"Line {number} is not a JSON object: {error}") from error


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
