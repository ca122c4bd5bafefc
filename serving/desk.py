"""What the shop steers by and what comes of it: tables of small topics, and messages for four of them."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Literal, get_args

import msgspec

from config.kafka import Kafka
from schema.behaviour import Drift, FunnelStats, Trend, decode_behaviour
from schema.campaign import decode_offer, parse_campaign
from schema.errors import MessageError
from schema.experiment import decode_results, parse_experiment
from schema.review import decode_review, parse_decision
from schema.rule import parse_rule
from serving.view import Row, View

Steered = Literal["rules", "review-decisions", "experiments", "campaigns"]
Table = Literal[
    "rules",
    "review-decisions",
    "experiments",
    "campaigns",
    "review-queue",
    "experiment-results",
    "offers",
    "trends",
    "funnel-stats",
    "drift",
]
_DAY_MS, _LATEST_MS = 86_400_000, 10**15
_PARSERS: dict[str, Callable[[str | None, bytes | None], object]] = {
    "rules": parse_rule,
    "review-decisions": parse_decision,
    "experiments": parse_experiment,
    "campaigns": parse_campaign,
}


class SegmentCounts(msgspec.Struct):
    """How many people are of each segment."""

    segments: dict[str, int]


def desk_tables(kafka: Kafka) -> dict[str, Callable[[str, bytes], Row]]:
    """The topics that the view keeps as tables, and as which row a message of each is kept; each raises MessageError
    for a message that is not valid."""
    rows: dict[str, Callable[[str, bytes], Row]] = {
        "review-queue": lambda key, raw: Row(key, 0, decode_review(raw)),
        "experiment-results": lambda key, raw: Row(key, 0, decode_results(raw)),
        "offers": _offer,
        "trends": _trend,
        "funnel-stats": _funnel,
        "drift": _drift,
    }
    rows |= {table: partial(_steered, parse) for table, parse in _PARSERS.items()}
    return {_topic(kafka, table): row for table, row in rows.items()}


class Desk:
    """The tables as they are, and the topics to which changes go."""

    def __init__(self, view: View, kafka: Kafka) -> None:
        self._view, self._kafka = view, kafka

    def table(self, table: Table, limit: int) -> bytes:
        """The messages of a table, as they are on its topic, in a JSON array, `limit` of them at most: of trends those
        of the newest hour, of funnels and drifts those of the newest day, of offers the newest of each campaign."""
        return b"[" + b",".join(islice(self._view.rows(_topic(self._kafka, table)), limit)) + b"]"

    def all(self, limit: int) -> bytes:
        """Every table, and the segments, by name in a JSON object."""
        held = {table: msgspec.Raw(self.table(table, limit)) for table in get_args(Table)}
        return msgspec.json.encode(held | {"segments": self.segments().segments})

    def behaviour(self) -> tuple[list[Trend], list[FunnelStats], dict[str, int]]:
        """The trends of the newest hour, the funnels of the newest day, and how many people are of each segment."""
        trends = [decode_behaviour(raw, Trend) for raw in self._view.rows(_topic(self._kafka, "trends"))]
        funnels = [decode_behaviour(raw, FunnelStats) for raw in self._view.rows(_topic(self._kafka, "funnel-stats"))]
        return trends, funnels, self.segments().segments

    def segments(self) -> SegmentCounts:
        """How many people are of each segment."""
        return SegmentCounts({name: count for name, count in sorted(self._view.segments.items()) if count})

    def message(self, table: Steered, key: str, raw: bytes | None) -> str:
        """The topic that a message goes to. Raises MessageError where the job would refuse it."""
        if raw is not None:
            _readable(raw)
        _PARSERS[table](key, raw)
        return _topic(self._kafka, table)


def _steered(parse: Callable[[str | None, bytes | None], object], key: str, raw: bytes) -> Row:
    return Row(key, 0, parse(key, raw))


def _trend(_: str, raw: bytes) -> Row:
    trend = decode_behaviour(raw, Trend)
    # The most taken first.
    return Row(f"{max(0, _LATEST_MS - trend.actions):016}\0{trend.kind}\0{trend.id}", trend.window_end, trend)


def _funnel(key: str, raw: bytes) -> Row:
    funnel = decode_behaviour(raw, FunnelStats)
    return Row(key, funnel.day, funnel)


def _drift(_: str, raw: bytes) -> Row:
    drift = decode_behaviour(raw, Drift)
    # The newest first.
    place = max(0, _LATEST_MS - drift.detected_at)
    return Row(f"{place:016}\0{drift.user_id}", drift.detected_at // _DAY_MS, drift)


def _offer(_: str, raw: bytes) -> Row:
    offer = decode_offer(raw)
    return Row(offer.campaign_id, 0, offer, offer.number)


def _readable(raw: bytes) -> None:
    """Raises MessageError for what a strict reader would not take: in fields that nobody knows nobody looks."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise MessageError("not_json", "message", "bytes", f"is no UTF-8: {error}") from None


def _topic(kafka: Kafka, table: str) -> str:
    return str(getattr(kafka, table.replace("-", "_")))
