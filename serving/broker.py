"""Whether there is a broker to talk to."""

import socket

from config.kafka import Kafka

_TIMEOUT_S = 1.0


def reachable(kafka: Kafka) -> bool:
    """Whether any of the bootstrap servers takes a connection. To be asked before a client is made: one that finds no
    broker leaves threads behind."""
    for server in kafka.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()
            return True
        except (OSError, ValueError):
            continue
    return False
