"""What the shop steers by and what comes of it: tables of small topics, and messages for three of them."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec

from config.kafka import Kafka
from schema.behaviour import FunnelStats, Trend, decode_behaviour
from schema.experiment import decode_results, parse_experiment
from schema.review import decode_review, parse_decision
from schema.rule import parse_rule
from serving.view import View

Steered = Literal["rules", "review-decisions", "experiments"]
Table = Literal[
    "rules", "review-decisions", "experiments", "review-queue", "experiment-results", "trends", "funnel-stats"
]
_PARSERS: dict[str, Callable[[str | None, bytes | None], object]] = {
    "rules": parse_rule,
    "review-decisions": parse_decision,
    "experiments": parse_experiment,
}
_DECODERS: dict[str, Callable[[bytes], object]] = {
    "review-queue": decode_review,
    "experiment-results": decode_results,
    "trends": lambda raw: decode_behaviour(raw, Trend),
    "funnel-stats": lambda raw: decode_behaviour(raw, FunnelStats),
}


class SegmentCounts(msgspec.Struct):
    """How many people are of each segment."""

    segments: dict[str, int]


def desk_tables(kafka: Kafka) -> dict[str, Callable[[str, bytes], object]]:
    """The topics that the view keeps as tables, and what raises MessageError for a message that is not valid."""
    valid: dict[str, Callable[[str, bytes], object]] = dict(_PARSERS)
    valid |= {table: partial(_check, decode) for table, decode in _DECODERS.items()}
    return {_topic(kafka, table): check for table, check in valid.items()}


class Desk:
    """The tables as they are, and the topics to which changes go."""

    def __init__(self, view: View, kafka: Kafka) -> None:
        self._view, self._kafka = view, kafka

    def table(self, table: Table) -> bytes:
        """The messages of a table, as they are on its topic, in a JSON array: of trends those of the newest hour, the
        most taken first, of funnels those of the newest day."""
        rows = self._view.rows(_topic(self._kafka, table))
        if table == "trends":
            trends = [decode_behaviour(raw, Trend) for raw in rows]
            newest = max((trend.window_end for trend in trends), default=0)
            latest = sorted((t for t in trends if t.window_end == newest), key=lambda t: (-t.actions, t.id))
            return msgspec.json.encode(latest)
        if table == "funnel-stats":
            funnels = [decode_behaviour(raw, FunnelStats) for raw in rows]
            day = max((funnel.day for funnel in funnels), default=0)
            return msgspec.json.encode([funnel for funnel in funnels if funnel.day == day])
        return b"[" + b",".join(rows) + b"]"

    def segments(self) -> SegmentCounts:
        """How many people are of each segment."""
        return SegmentCounts(dict(sorted(self._view.segments.items())))

    def message(self, table: Steered, key: str, raw: bytes | None) -> str:
        """The topic that a message goes to. Raises MessageError with every fault where the job would refuse it."""
        _PARSERS[table](key, raw)
        return _topic(self._kafka, table)


def _check(decode: Callable[[bytes], object], _: str, raw: bytes) -> None:
    decode(raw)


def _topic(kafka: Kafka, table: str) -> str:
    return str(getattr(kafka, table.replace("-", "_")))
