"""The parts of the serving process, and how they are wired."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from schema.pseudonym import pseudonym
from serving.desk import Desk, desk_tables
from serving.event_producer import EventProducer
from serving.follower import Follower
from serving.live import Live
from serving.metrics import BehaviourMetrics, Metrics, follow
from serving.pulse import Beat, Pulse
from serving.settings import ServingSettings
from serving.view import View

_BEAT_S, _BEATS = 1.0, 300


class Service:
    """Holds the view, follows the topics into it, and wakes who waits. `ended` is called where the topics cannot be
    followed any more."""

    def __init__(self, settings: ServingSettings, ended: Callable[[], None] = lambda: None) -> None:
        kafka = settings.kafka
        self.settings, self._ended = settings.serving, ended
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.view = View(
            settings.serving.data,
            kafka.recommendations,
            kafka.items,
            kafka.similar_items,
            desk_tables(kafka) if self.settings.desk else {},
            kafka.segments,
            kafka.forbidden_items,
            kafka.category_items,
        )
        self.desk = Desk(self.view, kafka)
        self.live = Live()
        # As pulses come, the newest last; an event of its own for those who wait for the next.
        self.beats: deque[Beat] = deque(maxlen=_BEATS)
        self.beaten = asyncio.Event()
        parser = settings.events.parser()
        self.events = EventProducer(kafka, parser())
        self._pseudonym_key = settings.privacy.key()
        self.follower = Follower(self.view, kafka, self._heard, self.settings.desk)
        self.metrics = Metrics(self.registry)
        follow(self.metrics.users, lambda: self.view.users)
        follow(self.metrics.items, lambda: self.view.items)
        follow(self.metrics.behind, lambda: self.follower.behind)
        follow(self.metrics.heard, lambda: monotonic() - self.follower.heard_at)
        if self.settings.desk:
            self.registry.register(BehaviourMetrics(self.desk.behaviour))
        self.pulse = Pulse(self.view, kafka, parser(), self.key, self.metrics) if settings.serving.pulse else None
        self._loop: asyncio.AbstractEventLoop | None = None

    def key(self, user_id: str) -> str:
        """The key of a user's list: the id, or its pseudonym where the job works with those."""
        return user_id if self._pseudonym_key is None else pseudonym(self._pseudonym_key, user_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the topics for as long as this is entered."""
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        self.follower.start()
        if self.pulse is not None:
            self.pulse.start()
        try:
            yield
        finally:
            watch.cancel()
            self.follower.stop()
            if self.pulse is not None:
                self.pulse.stop()
            self.events.close()
            self.view.close()

    def _heard(self, changed: list[str], records: list[Any]) -> None:
        """Hear of lists, in the follower's thread."""
        if self.pulse is not None:
            self.pulse.lists(records)
        if self._loop is not None and self.live.waits(changed):
            self._loop.call_soon_threadsafe(self.live.changed, changed)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            if self.follower.failure is not None:
                self._ended()
                return
            if self.pulse is not None:
                self.beats.append(self.pulse.beat())
                waiting, self.beaten = self.beaten, asyncio.Event()
                waiting.set()
