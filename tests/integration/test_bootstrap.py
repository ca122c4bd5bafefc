"""A history learned by `headrace bootstrap`, and the job that goes on from it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.integration.test_recommend_job import JOB, START, Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SUFFIX = "-after-history"


def test_the_job_goes_on_where_the_history_ends(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_topics(stack.bootstrap_servers, {name + SUFFIX: topic for name, topic in default_topics().items()})
    for name in default_topics():
        monkeypatch.setenv(f"HEADRACE_KAFKA__{name.replace('-', '_').upper()}", name + SUFFIX)
    monkeypatch.setenv("HEADRACE_KAFKA__BOOTSTRAP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("HEADRACE_LISTS__SEND_UNCHANGED", "true")
    history, model = tmp_path / "history.csv", tmp_path / "first.model"
    with history.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user_id", "item_id", "event_type", "timestamp", "category"))
        items = [(n * 7 + n // 50) % 30 for n in range(500)]
        rows.writerows((f"u{n % 10}", f"i{i}", "view", START - 1000 + n, i % 3) for n, i in enumerate(items))
    command = [sys.executable, "-m", "cli", "bootstrap", str(history), "--model", str(model), "--json"]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ).stdout)
    assert (done["events"], done["users"]) == (500, 10)
    monkeypatch.setenv("HEADRACE_MODELS__START_FROM", str(model))

    job = stack.submit(JOB)
    topics = Topics(stack.bootstrap_servers, suffix=SUFFIX)
    # The profiles came first, as they were sent before.
    topics.send("events", *(topics.event(n, f"u{n}", f"i{n}") for n in range(10)), topics.event(10, "new", "i3"))
    versions = {f"u{n}": 51 for n in range(10)} | {"new": 1}
    topics.wait(lambda: versions.items() <= topics.profile_versions().items())
    for user, made in topics.newest().items():
        assert made is not None
        assert made["model_version"] >= 500
        if user.startswith("u"):
            assert {item["item_id"] for item in made["items"]} <= {f"i{n}" for n in range(30)}
            assert len(made["items"]) == 20

    # The same again is a duplicate; what is no profile is a dead letter.
    event = {"event_id": "x", "user_id": "u0", "event_type": "import_profile", "timestamp": START}
    topics.send("events", json.dumps(event | {"properties": {"profile": "AAAA"}}).encode())
    topics.send("events", json.dumps(event).encode(), topics.event(20, "u0", "i1"))
    topics.wait(lambda: topics.profile_versions()["u0"] == 52 and len(topics.dead) == 2)
    assert {letter["error"] for letter in topics.dead} == {"bad_profile"}
    topics.close()
    stack.cancel(job)
