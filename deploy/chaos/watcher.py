"""What consumers see: the newest list of each user and the dead letters, kept as they come."""

import json
import threading
from typing import Any

from schema.recommendation import is_default


class Watcher(threading.Thread):
    """Reads both output topics from their beginning until `stop`. `sent_at` tells when each event was sent."""

    def __init__(self, bootstrap_servers: str, sent_at: dict[str, float]) -> None:
        super().__init__(daemon=True)
        self.versions: dict[str, int] = {}
        """User to the profile version of the newest list: one that comes again after a restart is passed over."""
        self.dead: list[dict[str, Any]] = []
        self.lists = 0
        self.newest_sent = 0.0
        """When the event was sent whose list has come, the latest of all (`time.monotonic()`)."""
        self.failure: BaseException | None = None
        self._bootstrap_servers, self._sent_at = bootstrap_servers, sent_at
        self._stopped = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        from kafka import KafkaConsumer

        try:
            consumer = KafkaConsumer(
                "recommendations",
                "dead-letters",
                bootstrap_servers=self._bootstrap_servers,
                auto_offset_reset="earliest",
                group_id=None,
            )
            while not self._stopped.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        self._take(record)
            consumer.close()
        except Exception as error:
            self.failure = error

    def stop(self) -> None:
        """End the thread; what was seen stays."""
        self._stopped.set()
        self.join()

    def _take(self, record: Any) -> None:
        message = json.loads(record.value)
        if record.topic == "dead-letters":
            self.dead.append(message)
            return
        self.lists += 1
        user = record.key.decode()
        if not is_default(user):
            self.versions[user] = max(self.versions.get(user, 0), message["profile_version"])
            self.newest_sent = max(self.newest_sent, self._sent_at.get(message["event_id"], 0.0))
