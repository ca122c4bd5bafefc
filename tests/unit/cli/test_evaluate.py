"""`headrace evaluate`, as it is called: what it reads, and what it prints and writes."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.evaluate import read_events

pytestmark = pytest.mark.unit
START = 1_600_000_000_000
COLUMNS = ("user_id", "item_id", "event_type", "timestamp", "value", "category")
# Two at the same moment keep the file's order.
ROWS = [(f"u{n % 3}", f"i{n // 3}", "rating", START + n // 2, 5, f"c{n % 2}") for n in range(60)]


def written(folder: Path, rows: list[tuple[object, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    file = folder / "history.csv"
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])
    return file


@pytest.mark.parametrize("parquet", [False, True])
def test_it_prints_one_object_and_writes_a_line_an_event(tmp_path: Path, parquet: bool) -> None:
    backwards = ROWS[::-1]
    file, dump = written(tmp_path, backwards), tmp_path / "lists.jsonl"
    if parquet:
        pl.read_csv(file).write_parquet(file.with_suffix(".parquet"))
        file = file.with_suffix(".parquet")
    done = CliRunner().invoke(app, ["evaluate", str(file), "--k", "5", "--json", "--dump", str(dump)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["k"], report["events"], report["exclude_seen"]) == (5, 60, False)
    assert {"all", "new", "carts_and_purchases", "light", "coverage", "events_per_second"} <= report.keys()
    assert {"hit", "ndcg", "mrr"} <= report["all"].keys()
    lines = [json.loads(line) for line in dump.read_text().splitlines()]
    ordered = sorted(backwards, key=lambda row: row[3])
    assert [(line["user_id"], line["item_id"], line["timestamp"]) for line in lines] == [
        (user, item, at) for user, item, _, at, *_ in ordered
    ]
    assert [line["index"] for line in lines] == list(range(60))
    assert lines[0]["items"] == []
    assert len(lines[-1]["items"]) == 5


def test_values_may_be_whole_first_and_fractions_later(tmp_path: Path) -> None:
    rows = [("u", "i", "rating", START + n, 5 if n < 150 else 4.5, "") for n in range(151)]
    events, _ = read_events(written(tmp_path, rows))
    assert (events[0].value, events[-1].value) == (5.0, 4.5)


@pytest.mark.parametrize("parquet", [False, True])
def test_columns_that_are_a_context_are_properties_of_the_events(tmp_path: Path, parquet: bool) -> None:
    rows = [("u", "i", "view", START, "", "", 7, "de"), ("v", "i", "view", START, "", "", "", "")]
    file = written(tmp_path, rows, (*COLUMNS, "age", "country"))
    if parquet:
        pl.read_csv(file, schema_overrides={"value": pl.Float64}).write_parquet(file.with_suffix(".parquet"))
        file = file.with_suffix(".parquet")
    events, _ = read_events(file, properties=["country", "age", "device"])
    assert [event.properties for event in events] == [{"country": "de", "age": "7"}, None]


def test_the_catalogue_may_be_given(tmp_path: Path) -> None:
    file, items, dump = (tmp_path / name for name in ("events.csv", "items.jsonl", "lists.jsonl"))
    written(tmp_path, [("u", "i", "view", START, "", ""), ("v", "i", "view", START + 1, "", "")]).rename(file)
    told = [{"item_id": "early", "created_at": START - 1}, {"item_id": "late", "created_at": START + 2}]
    items.write_text("".join(json.dumps(item) + "\n" for item in told))
    asked = ["evaluate", str(file), "--dump", str(dump), "--items", str(items), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    lists = [set(json.loads(line)["items"]) for line in dump.read_text().splitlines()]
    assert lists == [{"early"}, {"early", "i"}]
    items.write_text('{"item_id": "a"}\n{"item_id": "b", "price": -1}\n')
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert "line 2" in refused.output


def test_it_takes_what_the_configured_job_takes(tmp_path: Path) -> None:
    file, config = written(tmp_path, [("u", "i", "pv", START, "", "")]), tmp_path / "job.toml"
    refused = CliRunner().invoke(app, ["evaluate", str(file), "--json"])
    assert refused.exit_code == 2
    assert "pv" in refused.output
    config.write_text('[events]\nvocabularies = ["taobao"]\n')
    taken = CliRunner().invoke(app, ["evaluate", str(file), "--json", "--config", str(config)])
    assert taken.exit_code == 0, taken.output


def test_who_is_erased_begins_anew_and_without_consent_nothing_is_read(tmp_path: Path) -> None:
    views = [(user, f"i{n}", "view", START + n, "true") for n in range(20) for user in ("anna", "bert")]
    secret = [("carl", "i1", "view", START + 30, "false")]
    gone = [("anna", "", "erase_user", START + 40, "false"), ("anna", "i3", "view", START + 41, "true")]
    columns = ("user_id", "item_id", "event_type", "timestamp", "consent")
    file, dump = written(tmp_path, views + secret + gone, columns), tmp_path / "lists.jsonl"
    done = CliRunner().invoke(app, ["evaluate", str(file), "--exclude-seen", "--dump", str(dump), "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in dump.read_text().splitlines()]
    assert {line["user_id"] for line in lines} == {"anna", "bert"}
    # What she had seen is offered to her again.
    assert lines[-2]["items"] == []
    assert "i5" in lines[-1]["items"]
