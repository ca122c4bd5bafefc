"""What the serving process tells Prometheus."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schema.behaviour import FunnelStats, Trend

_REQUESTS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_FRESHNESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics, in a registry of their own, and the ASGI layer that counts requests by route and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"headrace_{name}", text, registry=registry)

        self.freshness = Histogram(
            "headrace_freshness_seconds",
            "From the append of an event to that of its list",
            buckets=_FRESHNESS,
            registry=registry,
        )
        self.hit = gauge("prequential_hit", "Share of the newest events whose item stood in the list the person had")
        self.users = gauge("serving_users", "Users whose lists are held")
        self.items = gauge("serving_items", "Items of the catalogue that are held")
        self.behind = gauge("serving_behind", "Messages yet to be read of those that were there at the start")
        self.heard = gauge("serving_heard_seconds", "Since the broker last answered")
        self._requests = Counter(
            "headrace_serving_requests",
            "Requests answered, by route and status",
            ("route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "headrace_serving_request_seconds",
            "From a request's arrival to the end of its answer, by route; streams are not timed",
            ("route",),
            buckets=_REQUESTS,
            registry=registry,
        )

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """An ASGI layer that counts and times what passes through it."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            started, status = time.perf_counter(), 500

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                # The pattern, never the path: users would become labels.
                route = str(scope.get("path_template") or "other")
                self._requests.labels(route, str(status)).inc()
                if not route.endswith("/stream"):
                    self._seconds.labels(route).observe(time.perf_counter() - started)

        return measured


def follow(gauge: Gauge, value: Callable[[], float | None]) -> None:
    """Have the gauge ask for its value whenever it is read; None is not a number."""

    def read() -> float:
        found = value()
        return math.nan if found is None else found

    gauge.set_function(read)


class BehaviourMetrics(Collector):
    """What the desk holds of behaviour, as gauges that are made when they are read: of the newest hour's trends the
    `TOP` items and categories that were taken most, the funnels of the newest day of the `TOP` categories that were
    viewed most, and how many people are of each segment."""

    TOP = 10

    def __init__(self, held: Callable[[], tuple[Sequence[Trend], Sequence[FunnelStats], Mapping[str, int]]]) -> None:
        self._held = held

    def collect(self) -> Iterable[Metric]:
        """Each gauge with its values."""
        trends, funnels, segments = self._held()
        actions = GaugeMetricFamily(
            "headrace_trend_actions", "Actions of the newest hour on what its trends are", labels=("kind", "id")
        )
        for kind in ("item", "category"):
            # Each once, though its hour may have been told twice.
            of_kind = {trend.id: trend.actions for trend in trends if trend.kind == kind}
            for trend_id, count in sorted(of_kind.items(), key=lambda one: -one[1])[: self.TOP]:
                actions.add_metric((kind, trend_id), count)
        steps = GaugeMetricFamily(
            "headrace_funnel", "How many came to each step of the newest day, by category", labels=("category", "step")
        )
        for funnel in sorted(funnels, key=lambda funnel: -funnel.viewed)[: self.TOP]:
            for step in ("viewed", "any_carted", "any_purchased", "strict_carted", "strict_purchased"):
                steps.add_metric((funnel.category, step), getattr(funnel, step))
        people = GaugeMetricFamily("headrace_people", "People of each segment", labels=("segment",))
        for segment, count in segments.items():
            people.add_metric((segment,), count)
        return actions, steps, people


def described() -> Iterable[Metric]:
    """Every metric with its type and text."""
    registry = CollectorRegistry()
    Metrics(registry)
    registry.register(BehaviourMetrics(lambda: ((), (), {})))
    return sorted(registry.collect(), key=lambda metric: metric.name)
