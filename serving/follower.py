"""Reads the topics into the view, from where it stands, for as long as the process lives."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from config.kafka import Kafka
from serving.view import Record, View

_log = logging.getLogger(__name__)
_DISCOVER_S, _NOTE_S = 30.0, 60.0


class WrongClusterError(RuntimeError):
    """The view was made of the topics of another Kafka cluster."""


class Follower(threading.Thread):
    """The one thread that writes the view. `heard` is called in it with the users whose lists changed, and with the
    records of lists as they came.

    `behind` is how many messages are still to be read of those that were there at the start, None until that is known;
    `failure` what ended the thread. A broker that is away is waited for.
    """

    def __init__(self, view: View, kafka: Kafka, heard: Callable[[list[str], list[Any]], None]) -> None:
        super().__init__(name="follower", daemon=True)
        self.behind: int | None = None
        self.failure: Exception | None = None
        self.polled_at = 0.0
        self._view, self._kafka, self._heard = view, kafka, heard
        self._topics = (kafka.items, kafka.similar_items, kafka.recommendations)
        self._ends: dict[TopicPartition, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Follow until stopped."""
        while not self._over.is_set():
            try:
                self._follow()
            except KafkaError as error:
                _log.warning("The broker is waited for: %r", error)
                self._over.wait(1)
            except Exception as error:
                _log.error("The view is no longer followed: %s", error)
                self.failure = error
                return

    def stop(self) -> None:
        """End the thread after what it is writing."""
        self._over.set()
        self.join()

    def _follow(self) -> None:
        self._check_cluster()
        consumer = KafkaConsumer(
            **self._kafka.python_client(),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        try:
            complete, discovered, noted = self._assign(consumer), time.monotonic(), 0.0
            while not self._over.is_set():
                polled = consumer.poll(timeout_ms=200, max_records=2000)
                self.polled_at = time.monotonic()
                records = [record for partition in polled.values() for record in partition]
                if records:
                    taken = (Record(r.topic, r.partition, r.offset, r.key, r.value) for r in records)
                    changed = self._view.apply(taken)
                    self._heard(changed, [r for r in records if r.topic == self._kafka.recommendations])
                if complete and self.behind != 0:
                    self._count_behind(consumer)
                if self.behind == 0 and self.polled_at > noted + _NOTE_S:
                    self._view.seen()
                    noted = self.polled_at
                if time.monotonic() > discovered + (_DISCOVER_S if complete else 1):
                    complete, discovered = self._assign(consumer), time.monotonic()
        finally:
            consumer.close()

    def _check_cluster(self) -> None:
        admin = KafkaAdminClient(**self._kafka.python_client())
        try:
            found = str(admin.describe_cluster()["cluster_id"])
        finally:
            admin.close()
        known = self._view.cluster()
        if known is None:
            self._view.belongs_to(found)
        elif known != found:
            raise WrongClusterError(
                f"The view is of Kafka cluster {known}, the broker of {found}: give another folder, or delete this one."
            )

    def _assign(self, consumer: KafkaConsumer) -> bool:
        """Read all partitions, new ones from the place that the view has of them; returns whether all topics exist."""
        partitions = {topic: sorted(consumer.partitions_for_topic(topic) or ()) for topic in self._topics}
        complete = all(partitions.values())
        wanted = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
        new = [partition for partition in wanted if partition not in consumer.assignment()]
        if not new:
            return complete
        places = {partition: consumer.position(partition) for partition in consumer.assignment()}
        consumer.assign(wanted)
        for partition in wanted:
            place = places.get(partition, self._view.place(*partition))
            if place is None:
                consumer.seek_to_beginning(partition)
            else:
                consumer.seek(partition, place)
        # New ones count too, until the view is as new as the topics were.
        if self.behind != 0:
            self._ends |= consumer.end_offsets(new)
        return complete

    def _count_behind(self, consumer: KafkaConsumer) -> None:
        places = {partition: consumer.position(partition) or 0 for partition in self._ends}
        self.behind = sum(max(0, end - places[partition]) for partition, end in self._ends.items())
        if self.behind == 0:
            _log.info("The view holds the lists of %d users and %d items.", self._view.users, self._view.items)
