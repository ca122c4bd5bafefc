"""The one-machine stack: a real broker, a real Flink cluster, and the command line on top."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from cli.__main__ import app
from deploy.local.stack import MARK, Stack, still_running
from deploy.local.topics import Topic, create_topics, default_topics

pytestmark = pytest.mark.integration

JOB = Path(__file__).with_name("counting_job.py")
COUNTING = {"counted": Topic(), "counts": Topic()}


def headrace(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def send(stack: Stack, topic: str, user: str) -> None:
    producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers, acks="all")
    producer.send(topic, b"{}", key=user.encode()).get(timeout=20)
    producer.close()


def messages(stack: Stack, topic: str, count: int, seconds: float = 60) -> list[Any]:
    """The topic's first `count` values, waiting for them."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=stack.bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        consumer_timeout_ms=int(seconds * 1000),
    )
    found: list[Any] = []
    for message in consumer:
        found.append(msgspec.json.decode(message.value))
        if len(found) == count:
            break
    consumer.close()
    return found


def marked(stack: Stack) -> list[psutil.Process]:
    """Every process that runs for the stack."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{stack.data}:"):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def own_stack(tmp_path: Path, jars: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, jars)
    yield stack
    stack.down()


def test_up_again_starts_nothing(stack: Stack) -> None:
    before = stack.state
    stack.up(taskmanagers=4, kafka_port=0, flink_port=0, metrics_port=0)
    assert stack.state == before
    assert len(stack.taskmanager_pids) == 4
    assert set(stack.metrics_ports) == {"jobmanager", *(f"taskmanager-{n}" for n in range(1, 5))}


def test_topics_are_created_once_and_the_tables_among_them_compacted(stack: Stack) -> None:
    assert create_topics(stack.bootstrap_servers, default_topics(partitions=8)) == []
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in default_topics()])
    admin.close()
    assert partitions["events"] == 2
    policies = {name: config["cleanup.policy"]["value"] for name, config in configs["topic"].items()}
    said = ("items", "recommendations", "similar-items", "category-items", "taste-segments", "segments", "campaigns")
    steering = ("rules", "experiments", "experiment-results", "review-queue", "review-decisions", "forbidden-items")
    kept = ("events", "dead-letters", "erasures", "offers", "offer-tries", "exposures")
    counted = ("sessions", "funnel-stats", "trends", "abandoned-carts", "drift")
    assert policies == dict.fromkeys(said + steering, "compact") | dict.fromkeys(kept + counted, "delete")


def test_a_mapped_csv_goes_through_the_broker(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "foreign.csv"
    file.write_text("uid,sku,act,ts\nanna,1,view,1700000000000\nbert,2,cart,2023-11-14T22:13:20Z\n")
    create_topics(stack.bootstrap_servers, {"mapped": Topic()})
    data = ("--data", str(stack.data))
    headrace("produce", str(file), *data, "--topic", "mapped", "--map", "user=uid,item=sku,type=act,time=ts")
    read = ("consume", *data, "--topic", "mapped", "--from-beginning", "--json")
    lines = [msgspec.json.decode(line) for line in headrace(*read, "--max", "2").splitlines()]
    assert [(line["key"], line["value"]["item_id"], line["value"]["timestamp"]) for line in lines] == [
        ("anna", "1", 1700000000000),
        ("bert", "2", "2023-11-14T22:13:20Z"),
    ]
    assert headrace(*read, "--max", "1", "--user", "bert").count("bert") == 2


def test_a_taskmanager_that_is_just_ending_is_started_again(stack: Stack) -> None:
    pid, all_of_them = stack.taskmanager_pids[0], stack.state.taskmanagers
    psutil.Process(pid).terminate()
    deadline = time.monotonic() + 60
    while len(stack.rest("/taskmanagers")["taskmanagers"]) == all_of_them:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stack.ensure()
    assert len(stack.rest("/taskmanagers")["taskmanagers"]) == len(stack.taskmanager_pids) == all_of_them
    assert pid not in stack.taskmanager_pids


def test_a_job_survives_a_killed_taskmanager_and_moves_by_savepoint(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(stack.bootstrap_servers, COUNTING)
    data = ("--data", str(stack.data))
    left = set(Path(tempfile.gettempdir()).glob("flink-*"))
    monkeypatch.setenv("HEADRACE_KAFKA__DRIFT", "drift-of-another-name")
    job = headrace("submit", *data, "--job", str(JOB)).strip()
    # What the configuration names is there.
    assert create_topics(stack.bootstrap_servers, {"drift-of-another-name": Topic()}) == []
    assert set(Path(tempfile.gettempdir()).glob("flink-*")) <= left
    send(stack, "counted", "anna")
    assert messages(stack, "counts", 1) == [{"count": 1}]
    wait_for_checkpoint(stack, job)

    taskmanagers = [psutil.Process(pid) for pid in stack.taskmanager_pids]
    for taskmanager in taskmanagers:
        taskmanager.kill()
    assert not still_running(taskmanagers, 5)
    stack.ensure()
    send(stack, "counted", "anna")
    assert messages(stack, "counts", 2)[-1] == {"count": 2}

    savepoint = headrace("cancel", *data, "--savepoint").strip()
    assert stack.running_jobs() == []
    assert stack.submit(JOB, savepoint=savepoint) in stack.running_jobs()
    send(stack, "counted", "anna")
    assert messages(stack, "counts", 3)[-1] == {"count": 3}
    headrace("cancel", *data)
    assert stack.running_jobs() == []


def test_a_supervised_stack_outlives_its_jobmanager_and_down_leaves_no_process(own_stack: Stack) -> None:
    own_stack.up(kafka_port=0, flink_port=0, metrics_port=0, supervise=True)
    create_topics(own_stack.bootstrap_servers, COUNTING)
    job = own_stack.submit(JOB)
    send(own_stack, "counted", "anna")
    assert messages(own_stack, "counts", 1) == [{"count": 1}]
    wait_for_checkpoint(own_stack, job)

    psutil.Process(own_stack.state.processes["jobmanager"].pid).kill()
    send(own_stack, "counted", "anna")
    assert messages(own_stack, "counts", 2)[-1] == {"count": 2}
    deadline = time.monotonic() + 180
    while len(runs := own_stack.state.submission.runs if own_stack.state.submission else []) < 2:
        assert time.monotonic() < deadline, runs
        time.sleep(0.2)
    send(own_stack, "counted", "anna")
    wait_for_checkpoint(own_stack, runs[-1])
    assert any("beam_boot" in " ".join(process.cmdline()) for process in marked(own_stack))

    own_stack.down()
    assert marked(own_stack) == []
    assert own_stack.status()["processes"] == []

    own_stack.up(taskmanagers=1, kafka_port=0, flink_port=0, metrics_port=0)
    assert {"count": 3} in messages(own_stack, "counts", 10, seconds=5)
    own_stack.submit(JOB)
    while own_stack.rest("/overview")["slots-available"]:
        time.sleep(0.1)
    told = CliRunner().invoke(app, ["submit", "--data", str(own_stack.data), "--job", str(JOB)])
    assert "waits for 1 more of its slots: `headrace up --taskmanagers 2`" in " ".join(told.output.split()), told.output


def wait_for_checkpoint(stack: Stack, job: str) -> None:
    deadline = time.monotonic() + 90
    taken = stack.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"]
    while stack.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"] < taken + 2:
        assert time.monotonic() < deadline, "no checkpoint within 90 s"
        time.sleep(0.1)
