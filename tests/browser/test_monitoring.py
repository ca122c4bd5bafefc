"""A real Prometheus beside the real stack: it finds every metric that the dashboard and the alerts ask for."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kafka import KafkaProducer

from deploy.grafana.dashboard import FILE, OTHER_JOBS, ROWS, build
from deploy.local.stack import HOST, Stack
from tests.programs import program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, whole: Stack) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes the whole system for some seconds, in which events come and lists are asked for."""
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    url = str(whole.serving_url)
    # The ports of the processes in the place of the containers' names; the rest as it is deployed.
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    targets: dict[str, list[str]] = {"serving": [url.removeprefix("http://")], "jobmanager": [], "taskmanager": []}
    for name, port in whole.metrics_ports.items():
        if name != "serving":
            targets[name.split("-")[0]].append(f"{HOST}:{port}")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / "alerts.yml")]
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": targets[job["job_name"]]}]}
        for job in config["scrape_configs"]
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=url) as shop:
            feed(whole.bootstrap_servers, lambda: shop.get("/users/person-1/recommendations"))
        with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
            yield client
    finally:
        server.terminate()
        server.wait(20)


def feed(bootstrap_servers: str, ask: Callable[[], object]) -> None:
    """Events for ten seconds, one that is no event, and a question after each."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    producer.send("events", b"{")
    for number in range(100):
        event = {
            "event_id": f"watched-{number}",
            "user_id": f"watched-{number % 10}",
            "event_type": "view",
            "timestamp": int(time.time() * 1000),
            "item_id": f"rug-{number % 12}",
        }
        producer.send("events", json.dumps(event).encode())
        producer.flush()
        ask()
        time.sleep(0.1)
    producer.close()


def results(prometheus: httpx.Client, query: str) -> list[Any]:
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


QUERIES = sorted({query for panels in ROWS.values() for _, _, lines in panels for _, query in lines})


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_dashboard_finds_something(prometheus: httpx.Client, query: str) -> None:
    deadline = time.monotonic() + 180
    while not (found := results(prometheus, query)) and time.monotonic() < deadline:
        time.sleep(1)
    assert found
    assert all(float(series["value"][1]) >= 0 for series in found if series["value"][1] != "NaN")


def test_every_target_is_up_and_no_alert_fires_on_a_healthy_stack(prometheus: httpx.Client) -> None:
    assert {series["value"][1] for series in results(prometheus, "up")} == {"1"}
    # Serving, the JobManager and four TaskManagers.
    assert len(results(prometheus, "up")) == 6
    (group,) = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert [rule["name"] for rule in group["rules"] if rule["state"] == "firing"] == []


def test_every_item_with_a_text_was_encoded_and_no_network_failed(prometheus: httpx.Client) -> None:
    def counted(name: str) -> float:
        (series,) = results(prometheus, f"sum(flink_taskmanager_job_task_operator_headrace_{name})")
        return float(series["value"][1])

    # Texts of all, and images of all but one that has no picture.
    assert counted("items_encoded") == 37 + 36
    assert counted("encoder_failures") == 1
    assert counted("sequence_failures") == 0


def test_every_alert_asks_for_metrics_that_are_there(prometheus: httpx.Client) -> None:
    known = set(prometheus.get("/api/v1/label/__name__/values").json()["data"])
    # Of jobs that do not run here.
    queries = (query for panels in OTHER_JOBS.values() for _, _, lines in panels for _, query in lines)
    known |= {name for query in queries for name in re.findall(r"flink_\w+", query)}
    for rule in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]:
        assert set(re.findall(r"(?:flink|headrace)_\w+", rule["expr"])) <= known, rule["alert"]


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    tool = program("promtool")
    for command in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ):
        done = subprocess.run([tool, *command], cwd=RULES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((RULES / "alerts.test.yml").read_text())["tests"]
    cases = [case["alert_rule_test"][0] for case in tested]
    rules = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]} == {True, False}


def test_the_dashboard_is_the_one_that_the_code_makes() -> None:
    assert FILE.read_text() == build()
