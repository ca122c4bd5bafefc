"""Fetches the images of catalogue messages, from where the configuration allows it and nowhere else."""

import logging
import time
import urllib.request
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

MAX_BYTES = 16 * 2**20
_TIMEOUT_S, _GRACE_S, _AT_ONCE, _PART = 5.0, 0.5, 8, 65_536
_log = logging.getLogger(__name__)


class Images:
    """`sources` are the beginnings of addresses that may be fetched, each up to a `/`: https, http or file. What a
    message carries itself, as a `data:` address, always may."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._web = urllib.request.build_opener(_Redirects(self))
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def fetch(self, addresses: Sequence[str]) -> list[bytes | None]:
        """The images at the addresses, several at once; None for what may not be fetched, cannot be in five seconds, or
        is larger than 16 MiB."""
        # A host that drips its headers is past what a socket's timeout sees.
        turns = 1 + (len(addresses) - 1) // _AT_ONCE
        started, futures = time.monotonic(), [self._pool.submit(self._fetched, address) for address in addresses]
        until = started + _TIMEOUT_S * turns + _GRACE_S
        return [_in_time(future, until) for future in futures]

    def allows(self, address: str) -> bool:
        """Whether the address begins with one of the sources; of a file, once its links and dots are followed."""
        if address.startswith("file:"):
            path = _path(address).resolve()
            folders = (_path(source) for source in self._sources if source.startswith("file:"))
            return any(path.is_relative_to(folder.resolve()) for folder in folders)
        return address.startswith(tuple(source for source in self._sources if not source.startswith("file:")))

    def _fetched(self, address: str) -> bytes | None:
        try:
            if address.startswith("data:"):
                kind, _, content = address.partition(",")
                return b64decode(content, validate=True) if kind.endswith(";base64") else unquote_to_bytes(content)
            if not self.allows(address):
                return None
            if address.startswith("file:"):
                path = _path(address)
                return path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
            with self._web.open(address, timeout=_TIMEOUT_S) as answer:
                return _read(answer, time.monotonic() + _TIMEOUT_S)
        # Whatever a shop writes for an address is to cost one image.
        except Exception as error:
            _log.warning("no image at %.200s: %s", address, error)
            return None


def _in_time(future: "Future[bytes | None]", until: float) -> bytes | None:
    try:
        return future.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        future.cancel()
        return None


def _read(answer: BufferedIOBase, until: float) -> bytes | None:
    """All that the answer holds, None where it is too large. Raises TimeoutError where it is not there in time: the
    socket's own timeout is one for each part."""
    image = bytearray()
    while part := answer.read1(_PART):
        image += part
        if len(image) > MAX_BYTES:
            return None
        if time.monotonic() > until:
            raise TimeoutError(f"after {_TIMEOUT_S:.0f} s it had sent {len(image)} bytes")
    return bytes(image)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to where one may fetch."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not self._images.allows(newurl):
            raise OSError(f"it leads to {newurl}, from where no images are fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))
