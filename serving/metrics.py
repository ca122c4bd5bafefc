"""What the serving process tells Prometheus."""

import math
import time
from collections.abc import Callable, Iterable

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

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


def described() -> Iterable[Metric]:
    """Every metric with its type and text."""
    registry = CollectorRegistry()
    Metrics(registry)
    return sorted(registry.collect(), key=lambda metric: metric.name)
