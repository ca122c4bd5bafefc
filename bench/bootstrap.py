"""How fast a history becomes a model and profiles in a running job."""

import os
import time
from pathlib import Path

import polars as pl

from bench.pipe import START, Pipe, views
from cli.bootstrap import learn_history, send_profiles
from deploy.local.stack import Stack
from jobs.settings import load_settings

EVENTS, PEOPLE = 1_000_000, 100_000


def run(data: Path) -> dict[str, float]:
    """`EVENTS` views of `PEOPLE` in a Parquet file, of items as `bench floor` draws its own: seconds until the model is
    written, and from there until the job has taken in the profiles, not counting the submission between them, which a
    job without a history takes too; and events/s of both together."""
    stack = Stack(data / "bench", data / "jars")
    model = data / "bench" / "first.model"
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        file = data / "bench" / "history.parquet"
        users, items = views(EVENTS, PEOPLE)
        history_of = {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item}" for item in items],
            "event_type": ["view"] * EVENTS,
            "timestamp": [START + n for n in range(EVENTS)],
        }
        pl.DataFrame(history_of).write_parquet(file)
        settings = load_settings()
        started = time.monotonic()
        history = learn_history(file, model, settings)
        learned = time.monotonic() - started
        os.environ |= {
            "HEADRACE_MODELS__START_FROM": str(model.resolve()),
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        }
        pipe = Pipe(stack, Path("jobs/recommend.py"))
        pipe.submit()
        # The job runs when an event's list has come.
        pipe.send(1)
        pipe.until_seen()
        started = time.monotonic()
        send_profiles(history, load_settings())
        pipe.send(1)
        pipe.until_seen()
        imported = time.monotonic() - started
        pipe.cancel()
    finally:
        os.environ.pop("HEADRACE_MODELS__START_FROM", None)
        os.environ.pop("HEADRACE_KAFKA__BOOTSTRAP_SERVERS", None)
        stack.down()
    return {
        "events": history.events,
        "users": len(history.profiles),
        "learn_s": learned,
        "import_s": imported,
        "events_per_second": history.events / (learned + imported),
    }
