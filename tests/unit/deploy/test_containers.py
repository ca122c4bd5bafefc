"""docker-compose.yml and what it mounts, held as far as that goes without a Docker engine."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.docker import prepare
from deploy.local.topics import default_topics
from operators.metrics import METRICS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
GRAFANA = ROOT / "deploy" / "grafana"


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(parts[0], parts[1]) for parts in (volume.split(":") for volume in service.get("volumes", []))]


def test_every_mount_is_a_file_of_the_repository_or_a_declared_volume() -> None:
    for service in SERVICES.values():
        for source, _ in mounts(service):
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


def test_every_dependency_is_a_service_and_can_meet_its_condition() -> None:
    for service in SERVICES.values():
        needed = service.get("depends_on", {})
        for name in needed:
            assert name in SERVICES
            if isinstance(needed, dict) and needed[name]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name], name


def test_every_host_port_is_bound_to_this_machine_and_used_once() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_every_image_is_pinned_by_a_tag() -> None:
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    for image in images:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-java17)?", image), image


def test_the_image_takes_only_what_exists_and_is_not_ignored() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = re.findall(r"^COPY (\S+) ", DOCKERFILE, re.M) + re.findall(r"type=bind,source=(\S+?),", DOCKERFILE)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_through, source


def test_the_job_is_submitted_with_what_the_image_and_the_mounts_hold() -> None:
    script = SERVICES["submit"]["command"][-1]
    assert f"--jarfile /opt/jars/{prepare.CONNECTOR_JAR}" in script
    assert "-pyfs /opt/headrace -py /opt/headrace/jobs/recommend.py" in script
    assert "COPY jobs /opt/headrace/jobs" in DOCKERFILE
    config = re.search(r"--config (\S+)", script)
    assert config
    assert config[1] in {target for _, target in mounts(SERVICES["submit"])}


def test_the_topics_are_made_by_the_same_code_as_on_one_machine() -> None:
    code = SERVICES["topics"]["command"][-1].replace("${EVENT_PARTITIONS:-4}", "4")
    made: list[tuple[str, object]] = []
    names = {"create_topics": lambda servers, topics: made.append((servers, topics)), "default_topics": default_topics}
    exec(code.replace("from topics import *;", "").strip(), names)
    assert made == [(SERVICES["submit"]["environment"]["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"], default_topics(4))]


def test_prometheus_scrapes_the_port_that_the_image_configures(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "env: {java: {opts: {all: --add-opens=x}}}\n"
        "rest: {address: localhost}\ntaskmanager: {numberOfTaskSlots: 2, memory: {process: {size: 1728m}}}\n"
    )
    prepare.configure(tmp_path, "/opt/venv/bin/python")
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert settings["env.java.opts.all"] == "--add-opens=x"
    assert settings["taskmanager.numberOfTaskSlots"] == 1
    assert settings["taskmanager.memory.process.size"] == "2560m"
    assert "rest.address" not in settings
    assert "taskmanager" not in settings
    state = settings["execution.checkpointing.dir"].removeprefix("file://")
    for name in ("jobmanager", "taskmanager"):
        assert any(state.startswith(target) for _, target in mounts(SERVICES[name]))

    port = settings["metrics.reporter.prom.port"]
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"]: job for job in jobs}
    assert found["jobmanager"]["static_configs"] == [{"targets": [f"jobmanager:{port}"]}]
    assert found["taskmanager"]["dns_sd_configs"][0]["names"] == ["taskmanager"]
    assert found["taskmanager"]["dns_sd_configs"][0]["port"] == port


def test_the_dashboard_shows_every_metric_of_the_operators() -> None:
    shown = set(re.findall(r"flink_\w+", (GRAFANA / "dashboards" / "headrace.json").read_text()))
    assert shown >= {f"flink_taskmanager_job_task_operator_headrace_{name}" for name in METRICS}


def test_every_alert_has_its_place_in_the_runbook() -> None:
    file = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["rule_files"][0]
    assert f"/etc/prometheus/{file}" in {target for _, target in mounts(SERVICES["prometheus"])}
    (group,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / file).read_text())["groups"]
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    headings = {name for line in runbook.splitlines() if line.startswith("## ") for name in line[3:].split(", ")}
    assert len(group["rules"]) >= 8
    for rule in group["rules"]:
        assert rule["alert"] in headings
        assert rule["annotations"]["summary"].endswith(".")


def test_grafana_finds_its_dashboard_and_its_data() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    dashboard = json.loads((GRAFANA / "dashboards" / "headrace.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "headrace.yml").read_text())["providers"][0]
    assert provider["options"]["path"] in {target for _, target in mounts(SERVICES["grafana"])}


def test_docker_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker client with compose")
    done = subprocess.run(
        [docker, "compose", "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
