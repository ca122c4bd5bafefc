"""What comes of Flink's command line, with a script in its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import stack as module
from deploy.local.stack import Stack, StackError

pytestmark = pytest.mark.unit
Client = Callable[[str], Stack]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A stack whose `flink` is the given script."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(module, "_flink_home", lambda: tmp_path)
    monkeypatch.setattr(Stack, "bootstrap_servers", "127.0.0.1:1")
    monkeypatch.setattr(Stack, "_environment", lambda *_: {"PATH": "/usr/bin:/bin"})

    def made(script: str) -> Stack:
        (tmp_path / "bin" / "flink").write_text(script)
        return Stack(tmp_path / "data")

    return made


def test_its_output_ends_with_the_line_that_is_waited_for(client: Client) -> None:
    assert client("echo one\necho two\necho three").flink("run", until="two") == "one\ntwo\n"


def test_where_it_fails_its_output_is_told(client: Client) -> None:
    with pytest.raises(StackError, match=r"`flink run -d` failed with 3:\nno slots"):
        client("echo no slots; exit 3").flink("run", "-d", until="submitted")


def test_it_is_not_waited_for_for_ever(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLIENT_S", 0.5)
    with pytest.raises(StackError, match=r"`flink run` was not done after 0 s:\nwaiting"):
        client("echo waiting; exec sleep 60").flink("run", until="submitted")
