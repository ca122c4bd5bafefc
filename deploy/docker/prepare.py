"""Prepares the image while it is built: `python -m deploy.docker.prepare FLINK_HOME JARS`."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from deploy.local.stack import CONNECTOR

_SETTINGS = Path(__file__).resolve().parents[1] / "flink" / "config.yaml"
CONNECTOR_JAR = "flink-sql-connector-kafka.jar"
STATE = "file:///var/lib/headrace"


def configure(conf: Path, python: str) -> None:
    """Rewrite `conf`/config.yaml: the distribution's settings, ours over them, then what only this image knows."""
    file = conf / "config.yaml"
    settings = {
        **flat(yaml.safe_load(file.read_text())),
        **yaml.safe_load(_SETTINGS.read_text()),
        "metrics.reporter.prom.port": 9249,
        "execution.checkpointing.dir": f"{STATE}/checkpoints",
        "execution.checkpointing.savepoint-dir": f"{STATE}/savepoints",
        "python.executable": python,
        "python.client.executable": python,
    }
    # The container finds its own address and listens on all of its interfaces.
    for key in ("rest.address", "taskmanager.host"):
        settings.pop(key, None)
    for key in ("jobmanager.bind-host", "taskmanager.bind-host", "rest.bind-address"):
        settings[key] = "0.0.0.0"
    file.write_text(yaml.safe_dump(settings, width=100_000))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots, as Flink reads them."""
    settings: dict[str, Any] = {}
    for key, value in tree.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return settings


def fetch_connector(folder: Path) -> Path:
    """Put the Kafka connector, resolved from Maven, into `folder` under a name without its version."""
    import jgo

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        jars = jgo.build(CONNECTOR, cache_dir=Path(cache)).path.rglob("flink-sql-connector-kafka*.jar")
        return Path(shutil.copy(next(jars), folder / CONNECTOR_JAR))


def require_libpython() -> None:
    """Fail the build, not the running job, where Flink's thread mode would find no shared libpython."""
    import find_libpython

    if find_libpython.find_libpython() is None:
        raise SystemExit(f"{sys.executable} has no shared libpython.")


if __name__ == "__main__":
    require_libpython()
    configure(Path(sys.argv[1]) / "conf", sys.executable)
    print(fetch_connector(Path(sys.argv[2])))
