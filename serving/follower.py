"""Reads the topics into the view, from where it stands, for as long as the process lives."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from config.kafka import Kafka
from serving.broker import reachable
from serving.desk import desk_tables
from serving.view import MAX_ABSENCE_S, Record, View

_log = logging.getLogger(__name__)
_ASK_S, _NOTE_S, _STOP_S, _TIMEOUT_MS = 5.0, 60.0, 5.0, 3000


class ViewError(RuntimeError):
    """The view cannot go on: it is of another Kafka cluster, or was without its own for too long."""


class Follower(threading.Thread):
    """The one thread that writes the view. `heard` is called in it with the users whose lists changed, and with the
    records of lists as they came.

    `behind` is how many messages are still to be read of those that were there at the start, None until that is known;
    `heard_at` when the broker last answered, on the monotonic clock; `failure` what ended the thread. A broker that is
    away is waited for.
    """

    def __init__(
        self, view: View, kafka: Kafka, heard: Callable[[list[str], list[Any]], None], desk: bool = False
    ) -> None:
        super().__init__(name="follower", daemon=True)
        self.behind: int | None = None
        self.failure: Exception | None = None
        self.heard_at = 0.0
        self._view, self._kafka, self._heard = view, kafka, heard
        self._topics = (kafka.items, kafka.similar_items, kafka.recommendations)
        # Where the jobs that write them do not run, or an earlier version does, these need not be there.
        self._more = {kafka.forbidden_items, kafka.category_items}
        if desk:
            self._more |= {*desk_tables(kafka), kafka.segments}
        self._ends: dict[TopicPartition, int] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Follow until stopped."""
        while not self._over.is_set():
            if not reachable(self._kafka):
                self._over.wait(1)
                continue
            try:
                self._follow()
            except TopicAuthorizationFailedError as error:
                # Of the lists' own topics that is an error as any other.
                _log.warning(
                    "Of some topics what the desk shows, what is forbidden or what is popular may not be read: %s",
                    error,
                )
                # The others are followed on.
                refused = {str(topic) for topic in error.args[0]} if error.args else set[str]()
                self._more -= (refused & self._more) or self._more
                self._over.wait(1)
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
        self.join(_STOP_S)

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
            complete, asked, noted = self._assign(consumer), time.monotonic(), 0.0
            while not self._over.is_set():
                polled = consumer.poll(timeout_ms=200, max_records=2000)
                records = [record for partition in polled.values() for record in partition]
                if records:
                    self.heard_at = time.monotonic()
                    taken = (Record(r.topic, r.partition, r.offset, r.key, r.value) for r in records)
                    changed = self._view.apply(taken)
                    self._heard(changed, [r for r in records if r.topic == self._kafka.recommendations])
                if complete and self.behind != 0:
                    self._count_behind(consumer)
                if time.monotonic() > asked + (_ASK_S if complete else 1):
                    # A consumer whose broker is gone polls on in silence: this fails.
                    consumer.end_offsets(consumer.assignment(), timeout_ms=_TIMEOUT_MS)
                    complete, asked = self._assign(consumer), time.monotonic()
                    self.heard_at = asked
                    if self.behind == 0 and asked > noted + _NOTE_S:
                        self._view.seen()
                        noted = asked
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
            raise ViewError(
                f"The view is of Kafka cluster {known}, the broker of {found}: give another folder, or delete this one."
            )
        if self._view.absence_s() > MAX_ABSENCE_S:
            raise ViewError("The broker was away for too long: start again, and the view is begun anew.")

    def _assign(self, consumer: KafkaConsumer) -> bool:
        """Read all partitions, new ones from the place that the view has of them; returns whether all topics exist."""
        partitions = {topic: sorted(consumer.partitions_for_topic(topic) or ()) for topic in self._topics}
        complete = all(partitions.values())
        # Asked for by name, one that does not exist might be made.
        for topic in consumer.topics().intersection(self._more):
            partitions[topic] = sorted(consumer.partitions_for_topic(topic) or ())
        wanted = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
        new = [partition for partition in wanted if partition not in consumer.assignment()]
        if not new:
            return complete
        places = {partition: consumer.position(partition) for partition in consumer.assignment()}
        consumer.assign(wanted)
        for partition in wanted:
            place = places.get(partition)
            if place is None:
                place = self._view.place(*partition)
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
