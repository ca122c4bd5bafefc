"""`headrace evaluate`: the model of the job, without Flink, run prequentially over a file."""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from jobs.settings import Settings
    from schema.event import Event, EventParser
    from schema.item import Item

ItemsFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        help="The catalogue, JSON lines like the messages of its topic. An item is known from its created_at, or at "
        "the latest from its first event on.",
    ),
]
"""Option `--items` of the commands that replay events."""

_DELTA = 1e-6
"""The probability with which differential privacy may fail, in the epsilon that is printed."""


def read_events(
    file: Path, parser: "EventParser | None" = None, properties: Sequence[str] = ()
) -> "tuple[list[Event], dict[str, Item]]":
    """The events of a CSV or Parquet file in time order, where ties keep the file's order, and the items' categories
    as their catalogue; events without consent are left out.

    Columns user_id, item_id, event_type, timestamp (epoch milliseconds or RFC 3339), optionally value, consent,
    category and the events' `properties`, as texts. Raises typer.BadParameter naming the missing columns or the first
    bad row.
    """
    import msgspec
    import polars as pl

    from schema.errors import MessageError
    from schema.event import EventParser
    from schema.item import Item

    optional: dict[str, Any] = dict.fromkeys(properties, pl.String) | {"category": pl.String, "value": pl.Float64}
    text = {"user_id": pl.String, "item_id": pl.String, "event_type": pl.String}
    frame = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, schema_overrides=text | optional)
    missing = {*text, "timestamp"} - set(frame.columns)
    if missing:
        raise typer.BadParameter(f"{file} lacks the columns {', '.join(sorted(missing))}")
    parser = parser or EventParser()
    now = int(datetime.now().timestamp() * 1000)
    events: list[Event] = []
    catalogue: dict[str, Item] = {}
    for number, row in enumerate(frame.iter_rows(named=True)):
        fields = {name: row[name] for name in (*text, "timestamp", "value", "consent") if row.get(name) is not None}
        if told := {name: str(row[name]) for name in properties if row.get(name) is not None}:
            fields["properties"] = told
        try:
            event = parser.parse(msgspec.json.encode({"event_id": str(number), **fields}), now)
        except MessageError as error:
            raise typer.BadParameter(f"{file}, row {number + 1}: {error}") from error
        # One text for each item and person, which a processor finds in its cache.
        event.user_id, event.item_id = intern(event.user_id), event.item_id and intern(event.item_id)
        # An erasure is heeded whatever it says of consent, as the job does.
        if event.consent or event.event_type == "erase_user":
            events.append(event)
        if row.get("category") is not None and (item_id := event.item_id):
            catalogue.setdefault(item_id, Item(item_id, category=[str(row["category"])]))
    return sorted(events, key=lambda event: event.timestamp), catalogue


def read_items(file: Path) -> "dict[str, Item]":
    """The catalogue of messages as on the topic `items`, one a line; of several of one item the last counts. Raises
    typer.BadParameter naming the first bad line."""
    from schema.errors import MessageError
    from schema.item import parse_item

    catalogue: dict[str, Item] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            item_id, item = parse_item(None, line)
        except MessageError as error:
            raise typer.BadParameter(f"{file}, line {number}: {error}") from error
        if item is not None:
            catalogue[item_id] = item
    return catalogue


def read_for(settings: "Settings", file: Path, items: Path | None) -> "tuple[list[Event], dict[str, Item]]":
    """The events as the configured job takes them, and the catalogue, of which `items` says more where it is given."""
    events, catalogue = read_events(file, settings.events.parser()(), settings.models.context)
    return events, catalogue | (read_items(items) if items is not None else {})


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        file: Annotated[Path, typer.Argument(exists=True, help="CSV or Parquet: user_id,item_id,event_type,timestamp")],
        k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 20,
        exclude_seen: Annotated[
            bool, typer.Option("--exclude-seen", help="Leave out what the user had before.")
        ] = False,
        dump: Annotated[
            Path | None, typer.Option(help="Write each event and the list before it, as JSON lines.")
        ] = None,
        items: ItemsFile = None,
        config: Annotated[Path | None, typer.Option(exists=True, help="The job's configuration file.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    ) -> None:
        """Test then learn, event by event: hit, nDCG and MRR over the last half of the file."""
        import torch

        from config.loading import SettingsError
        from jobs.settings import load_settings
        from model.evaluate import evaluate as run
        from model.private_counts import epsilon

        torch.set_num_threads(1)
        try:
            settings = load_settings(config)
        except SettingsError as error:
            raise typer.BadParameter(str(error)) from error
        events, catalogue = read_for(settings, file, items)
        lines: list[str] = []

        def note(index: int, event: "Event", items: list[str]) -> None:
            row: dict[str, Any] = {"index": index, "user_id": event.user_id, "item_id": event.item_id}
            row |= {"event_type": event.event_type, "timestamp": event.timestamp, "items": items}
            lines.append(json.dumps(row))

        options = (settings.profile_options(), settings.blend_options())
        report = run(events, k, exclude_seen, *options, note if dump else None, catalogue)
        if dump:
            dump.write_text("".join(line + "\n" for line in lines))
        kinds = {"all": report.all, "new": report.new, "carts_and_purchases": report.carts_and_purchases}
        kinds |= {"light": report.light}
        noise = settings.privacy.noise_multiplier
        least = epsilon(noise, _DELTA) if noise else math.inf
        # JSON knows no infinity.
        spent = {"epsilon": least if least < math.inf else None, "delta": _DELTA} if noise else {}
        if as_json:
            result: dict[str, Any] = {"k": k, "exclude_seen": exclude_seen, "events": len(events)}
            result |= {name: scores.means() for name, scores in kinds.items()}
            result |= {"quarters": [scores.means() for scores in report.quarters]}
            result |= {"coverage": report.coverage, "gini": report.gini}
            result["events_per_second"] = report.events_per_second
            result |= spent
            print(json.dumps(result))
            return
        table = Table("last half", "events", f"hit@{k}", f"nDCG@{k}", f"MRR@{k}")
        for name, scores in kinds.items():
            means = scores.means()
            table.add_row(name, str(scores.events), *(f"{means[m]:.4f}" for m in ("hit", "ndcg", "mrr")))
        Console().print(table)
        quarters = ", ".join(f"{scores.means()['ndcg']:.4f}" for scores in report.quarters)
        Console().print(f"nDCG@{k} of each quarter {quarters}")
        spread = f"coverage {report.coverage:.3f}, Gini {report.gini:.3f}"
        Console().print(f"{spread}, {report.events_per_second:,.0f} events/s")
        if spent:
            Console().print(f"each person's whole stream: epsilon {least:.2f} at delta {_DELTA}")
