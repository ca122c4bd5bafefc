"""What people do after they were first shown a list of an experiment, and what they did before: first for each person,
then summed over the people of each arm."""

from typing import NamedTuple

import msgspec

from model.experiment_statistics import Comparison, Moments, compare, log_evidence_of_mismatch
from model.profile import event_digest
from schema.event import Event
from schema.experiment import ArmResult, Experiment, ExperimentResults, Metric

VERSION = 1
"""The first byte of both packed states."""
_RECENT_IDS = 64


class Sums(msgspec.Struct, array_like=True):
    """How many events of a type a person has, and the sum of price times quantity."""

    count: float = 0.0
    spend: float = 0.0


class Exposure(msgspec.Struct, array_like=True):
    """A person's arm, and what they had when they first saw a list of it, by type of event."""

    arm: str
    before: dict[str, Sums]


class Outcomes(msgspec.Struct, array_like=True):
    """The state of one person: sums by type of event, and exposures by experiment."""

    sums: dict[str, Sums] = {}
    exposures: dict[str, Exposure] = {}
    event_ids: list[int] = []


class Change(msgspec.Struct, array_like=True):
    """What changes for an experiment: a person joins an arm, with what they had `before`, by type of event; or, with an
    `event_type`, what they have of it since then was `old` and is `new`."""

    arm: str
    before: dict[str, Sums]
    event_type: str = ""
    old: Sums = msgspec.field(default_factory=Sums)
    new: Sums = msgspec.field(default_factory=Sums)


class Tally(msgspec.Struct, array_like=True):
    """The state of one experiment: its definition as JSON, and sums over the people of each arm, of its metric and of
    its guard."""

    definition: bytes = b""
    arms: dict[str, Moments] = {}
    guards: dict[str, Moments] = {}


class Harm(NamedTuple):
    """An arm whose guard is worse than in the control."""

    arm: str


_encoder = msgspec.msgpack.Encoder()
_outcomes, _tally = msgspec.msgpack.Decoder(Outcomes), msgspec.msgpack.Decoder(Tally)


def pack(state: Outcomes | Tally) -> bytes:
    """The state as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(state)


def unpack_outcomes(packed: bytes) -> Outcomes:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _outcomes.decode(_checked(packed))


def unpack_tally(packed: bytes) -> Tally:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _tally.decode(_checked(packed))


def _checked(packed: bytes) -> memoryview:
    if packed[0] != VERSION:
        raise ValueError(f"state of experiments has version {packed[0]}, this code reads {VERSION}")
    return memoryview(packed)[1:]


def expose(person: Outcomes, experiment_id: str, arm: str) -> Change | None:
    """The person was given a list of this arm, in place; None where that is not the first."""
    if experiment_id in person.exposures:
        return None
    before = {kind: Sums(sums.count, sums.spend) for kind, sums in person.sums.items()}
    person.exposures[experiment_id] = Exposure(arm, before)
    return Change(arm, before)


def take(person: Outcomes, event: Event) -> list[tuple[str, Change]]:
    """Take an event, in place; what changes for which experiment. An event seen before changes nothing."""
    digest = event_digest(event.event_id)
    if digest in person.event_ids:
        return []
    person.event_ids = [*person.event_ids, digest][-_RECENT_IDS:]
    sums = person.sums.setdefault(event.event_type, Sums())
    old = Sums(sums.count, sums.spend)
    sums.count += 1
    sums.spend += (event.price or 0.0) * (1.0 if event.quantity is None else event.quantity)
    changes = []
    for experiment_id, exposure in person.exposures.items():
        base = exposure.before.get(event.event_type, Sums())
        was, now = (Sums(one.count - base.count, one.spend - base.spend) for one in (old, sums))
        changes.append((experiment_id, Change(exposure.arm, exposure.before, event.event_type, was, now)))
    return changes


def count(tally: Tally, change: Change, experiment: Experiment) -> None:
    """Add a change to the sums of its arm, in place. Arms that the experiment does not have are left out."""
    if change.arm not in experiment.arms:
        return
    for table, metric in ((tally.arms, experiment.metric), (tally.guards, experiment.guard)):
        if metric is None or (change.event_type and change.event_type != metric.event_type):
            continue
        sums = table.setdefault(change.arm, Moments())
        known = _value(change.before.get(metric.event_type, Sums()), metric)
        if change.event_type:
            sums.add(_value(change.old, metric), known, -1)
        sums.add(_value(change.new, metric), known)


def results(tally: Tally, experiment: Experiment, now_ms: int) -> tuple[ExperimentResults, list[Harm]]:
    """What the experiment shows at `now_ms`, and which arms do harm."""
    control, found, harms = tally.arms.get(experiment.control, Moments()), {}, []
    compared = len(experiment.arms) - 1
    for name in experiment.arms:
        arm = tally.arms.get(name, Moments())
        result = ArmResult(int(arm.n), arm.y / arm.n if arm.n else 0.0)
        if name != experiment.control:
            # Several arms share what may go wrong (Bonferroni).
            against = compare(control, arm, experiment.planned_people, experiment.alpha / compared)
            _fill(result, against, compared)
            if experiment.guard is not None:
                none = Moments()
                guards = tally.guards.get(experiment.control, none), tally.guards.get(name, none)
                guarded = compare(*guards, experiment.planned_people, experiment.alpha / compared)
                if guarded.high < float("inf"):
                    result.guard_low, result.guard_high = guarded.low, guarded.high
                    worse = guarded.high < 0 if experiment.guard_harm == "less" else guarded.low > 0
                    if worse and name not in experiment.stopped:
                        harms.append(Harm(name))
        found[name] = result
    sizes = [tally.arms.get(name, Moments()).n for name in experiment.arms]
    evidence = log_evidence_of_mismatch(sizes, [arm.share for arm in experiment.arms.values()])
    mismatch = evidence >= _MISMATCH
    return ExperimentResults(experiment.experiment_id, now_ms, found, mismatch, list(experiment.stopped)), harms


_MISMATCH = 4.605170185988092
"""log(100): in one experiment of a hundred the alarm is false, however often one looks."""


def _fill(result: ArmResult, against: Comparison, compared: int) -> None:
    if against.high < float("inf"):
        result.difference, result.low, result.high = against.difference, against.low, against.high
        result.p_value = min(1.0, compared * against.p_value)
        result.adjusted, result.variance_cut = against.variance_cut > 0, against.variance_cut


def _value(sums: Sums, metric: Metric) -> float:
    if metric.outcome == "conversion":
        return float(sums.count > 0)
    value = sums.spend if metric.outcome == "spend" else sums.count
    return value if metric.cap is None else min(value, metric.cap)
