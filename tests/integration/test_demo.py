"""`./headrace demo`: on a stack of its own, with its page, until Ctrl-C, and then nothing of it is left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 1500
pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def started_in(folder: Path) -> list[psutil.Process]:
    """The processes that name the folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid()
    ]


def test_the_demo_shows_lists_on_a_page_tells_its_figures_and_takes_all_down(tmp_path: Path, jars: Path) -> None:
    (tmp_path / "jars").symlink_to(jars)
    told = tmp_path / "told.txt"
    asked = f"demo --data {tmp_path} --events {EVENTS} --rate 300 --json"
    quiet = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with told.open("w") as errors:
        demo = subprocess.Popen(
            # Where it hangs, it tells in which line.
            [sys.executable, "-X", "faulthandler", "-m", "cli", *asked.split()],
            cwd=ROOT,
            env=quiet | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=errors,
            # A shell has what it starts in the background ignore Ctrl-C, and all that this starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            address = waits_for(r"The page: (http://127\.0\.0\.1:\d+)", told, demo)
            # Itself, a broker, a JobManager, TaskManagers and what serves the page.
            assert len(started_in(tmp_path)) >= 5
            waits_for("All events are fed", told, demo)
            page = httpx.get(address, follow_redirects=True)
            assert (page.status_code, "text/html" in page.headers["content-type"]) == (200, True)
            # User 259 is the first of the file.
            listed = httpx.get(f"{address}/users/259/recommendations", params={"details": True}).json()
            assert listed["strategy"] == "personal"
            assert all(item["title"] for item in listed["items"])
            demo.send_signal(signal.SIGINT)
            output, _ = demo.communicate(timeout=120)
        finally:
            if demo.poll() is None:
                demo.send_signal(signal.SIGABRT)
                demo.wait(20)
                for process in started_in(tmp_path):
                    process.kill()
                print(told.read_text()[-8000:])
    assert demo.returncode == 0, told.read_text()[-2000:]
    figures: dict[str, Any] = json.loads(output)
    assert (figures["events_in"], figures["dead_letters"]) == (EVENTS, 0)
    assert figures["lists_out"] > 0
    assert 0 < figures["freshness_ms_p50"] <= figures["freshness_ms_p99"]
    assert 0 < figures["ndcg@20"] < figures["hit@20"] < 1
    assert started_in(tmp_path) == []
    assert list((tmp_path / "demo").iterdir()) == []


def waits_for(pattern: str, told: Path, demo: subprocess.Popen[bytes]) -> str:
    """What the demo tells on standard error, once it does; the first group where there is one."""
    end = time.monotonic() + 240
    while not (found := re.search(pattern, told.read_text())):
        assert demo.poll() is None, told.read_text()[-2000:]
        assert time.monotonic() < end, told.read_text()[-2000:]
        time.sleep(0.2)
    return found[1] if found.groups() else found[0]
