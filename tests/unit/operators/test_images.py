"""Images are fetched from where it is allowed, over real HTTP and real files, and from nowhere else."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import operators.images
from operators.images import Images

pytestmark = pytest.mark.unit


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        moves = {"/images/moved": "/images/a", "/images/away": "/private/a"}
        self.send_response(302 if self.path in moves else 200)
        if self.path in moves:
            self.send_header("Location", moves[self.path])
        self.end_headers()
        for _ in range(20 if self.path == "/images/slow" else 0):
            self.wfile.write(b".")
            time.sleep(0.05)
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_web_is_open_where_the_configuration_says_so_redirects_included(shop: str) -> None:
    images = Images([f"{shop}/images/"])
    asked = [f"{shop}/images/a", f"{shop}/private/a", f"{shop}/images/moved", f"{shop}/images/away"]
    assert images.fetch(asked) == [b"/images/a", None, b"/images/a", None]
    assert Images([]).fetch(asked) == [None] * 4


def test_a_host_that_drips_is_given_up_in_time(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, started = Images([f"{shop}/images/"]), time.monotonic()
    monkeypatch.setattr(operators.images, "_TIMEOUT_S", 0.2)
    assert images.fetch([f"{shop}/images/slow"]) == [None]
    assert time.monotonic() - started < 0.8
    monkeypatch.setattr(operators.images, "_TIMEOUT_S", 5.0)
    assert images.fetch([f"{shop}/images/slow"]) == [b"." * 20 + b"/images/slow"]


def test_files_are_read_below_their_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a b.png").write_bytes(b"a")
    (tmp_path / "secret").write_bytes(b"s")
    (folder / "link").symlink_to(tmp_path / "secret")
    images = Images([f"{folder.as_uri()}/"])
    asked = ["a%20b.png", "../secret", "link", "none.png", "%2e%2e/secret"]
    assert images.fetch([f"{folder.as_uri()}/{name}" for name in asked]) == [b"a", None, None, None, None]
    monkeypatch.setattr(operators.images, "MAX_BYTES", 0)
    assert images.fetch([f"{folder.as_uri()}/a%20b.png"]) == [None]


def test_what_a_message_carries_itself_needs_no_source() -> None:
    assert Images([]).fetch(["data:image/png;base64,YWI=", "data:,a%20b", "data:;base64,?"]) == [b"ab", b"a b", None]


@pytest.mark.parametrize(
    "address",
    ["", "gopher://x/", "/etc/passwd", "http://[::1", "http://127.0.0.1:1/a b", "file://", "http://127.0.0.1:1/"],
)
def test_a_bad_address_costs_one_image(address: str) -> None:
    assert Images(["http://127.0.0.1:1/", "file:///nowhere/"]).fetch([address]) == [None]
