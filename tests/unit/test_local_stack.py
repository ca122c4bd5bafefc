"""The local stack's decisions that need no process of their own."""

import errno
import os
import socket
import subprocess
from pathlib import Path

import msgspec
import psutil
import pytest

import deploy.local.stack as local
from deploy.local.stack import HOST, Process, Stack, StackError, State, Submission, still_running

pytestmark = pytest.mark.unit


def record(data: Path, pid: int) -> None:
    state = State(9092, 9093, 8081, 6123, 9249, 1, {"kafka": Process(pid)})
    (data / "stack.json").write_bytes(msgspec.json.encode(state))


def test_a_stack_that_was_never_started_says_how_to_start_it(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    assert stack.status()["running"] is False
    with pytest.raises(StackError, match="headrace up"):
        _ = stack.bootstrap_servers
    stack.down()


def test_a_pid_that_belongs_to_another_process_is_neither_alive_nor_stopped(tmp_path: Path) -> None:
    record(tmp_path, os.getpid())
    stack = Stack(tmp_path)
    assert [process["alive"] for process in stack.status()["processes"]] == [False]
    stack.down()
    assert not (tmp_path / "stack.json").exists()


def test_a_taken_port_is_named_with_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "_jars", lambda _: local.Jars([], ""))
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(StackError, match=rf"{port}.*--kafka-port"):
            Stack(tmp_path).up(kafka_port=port)


def test_a_missing_libpython_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.find_libpython, "find_libpython", lambda: None)
    with pytest.raises(StackError, match=r"libpython3\.11"):
        Stack(tmp_path).up()


def test_a_process_of_which_the_kernel_says_enoent_while_it_ends_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, faults = os.pidfd_open, [OSError(errno.ENOENT, "ends just now")]

    def pidfd_open(pid: int, flags: int = 0) -> int:
        if faults:
            raise faults.pop()
        return opened(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    child = psutil.Process(subprocess.Popen(["sleep", "60"]).pid)
    child.kill()
    assert still_running([child], 10) == []
    assert not faults


def test_a_process_that_could_not_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, tried = Stack(tmp_path), []
    state = State(9092, 9093, 8081, 6123, 9249, 1, {"kafka": Process(1), "taskmanager-1": Process(2)})
    (tmp_path / "stack.json").write_bytes(msgspec.json.encode(state))
    monkeypatch.setattr(Stack, "_alive", lambda _, name, __: name in state.processes)
    monkeypatch.setattr(Stack, "ensure", lambda _: tried.append("ensure"))
    assert stack.recover() == ["jobmanager started again"]
    assert tried == ["ensure"]


def test_every_submitted_job_is_submitted_again_but_those_that_run_or_were_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, again = Stack(tmp_path), []
    jobs = [Submission(f"{name}.py", (), None, [name]) for name in ("gone", "runs", "failed", "ended")]
    state = State(9092, 9093, 8081, 6123, 9249, 0, {"kafka": Process(1), "jobmanager": Process(2)}, jobs)
    (tmp_path / "stack.json").write_bytes(msgspec.json.encode(state))
    states = [("runs", "RUNNING"), ("failed", "FAILED"), ("ended", "CANCELED")]
    monkeypatch.setattr(Stack, "_alive", lambda *_: True)
    monkeypatch.setattr(Stack, "jobs", lambda _: [{"jid": jid, "state": said} for jid, said in states])
    monkeypatch.setattr(Stack, "_run", lambda _, job, *__, **___: again.append(job.stem) or f"{job.stem} again")
    stack.recover()
    assert again == ["gone", "failed"]
    assert sorted(one.runs[-1] for one in stack.state.submissions) == ["ended", "failed again", "gone again", "runs"]
    stack._forget("gone again")
    assert "gone.py" not in [one.job for one in stack.state.submissions]
