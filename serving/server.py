"""Runs the serving process. `python -m serving.server --config headrace.toml` needs nothing else of the project."""

import argparse
import gc
import logging
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from config.loading import SettingsError, load
from serving.api import create_app
from serving.service import Service
from serving.settings import ServingSettings

_SWITCH_S = 0.0005
"""The follower's thread gives way to requests ten times sooner than by Python's default."""


def run(settings: ServingSettings, tell: Callable[[Service, str], None] = lambda *_: None) -> int:
    """Serve until the process is told to end; returns its exit status, 1 where the topics cannot be followed. `tell`
    hears, in a thread of its own, of the service and its address."""
    sys.setswitchinterval(_SWITCH_S)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    listener = socket.create_server((settings.serving.host, settings.serving.port))
    host, port = listener.getsockname()[:2]
    server: uvicorn.Server

    def ended() -> None:
        server.should_exit = True

    service = Service(settings, ended)
    config = uvicorn.Config(
        create_app(service),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        # Streams never end by themselves.
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # What is there now stays: a collection need not look at it each time, which would hold up requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    threading.Thread(target=tell, args=(service, f"http://{host}:{port}"), daemon=True).start()
    server.run([listener])
    return int(service.follower.failure is not None)


def main() -> None:
    """Validate the configuration, then serve. A faulty configuration stops here with every fault."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--config", type=Path, help="TOML file; HEADRACE_SECTION__FIELD overrides it")
    try:
        settings = load(ServingSettings, arguments.parse_args().config)
    except SettingsError as error:
        sys.exit(str(error))
    sys.exit(run(settings))


if __name__ == "__main__":
    main()
