"""What people do after they were first shown a list of an experiment, and what they did before: first for each person,
then summed over the people of each arm."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from model.experiment_statistics import Comparison, Moments, compare, log_evidence_of_mismatch
from model.profile import event_digest
from schema.event import Event
from schema.experiment import ArmResult, Experiment, ExperimentResults, Metric

VERSION = 1
"""The first byte of the packed states."""
_RECENT_IDS = 64


class Sums(msgspec.Struct, array_like=True):
    """How many events of a type a person has, and the sum of price times quantity."""

    count: float = 0.0
    spend: float = 0.0


class Taken(msgspec.Struct, array_like=True):
    """An event of a person, when the broker had it (epoch milliseconds), and what it added to its type's sums."""

    appended_ms: int
    event_type: str
    spend: float


class Outcomes(msgspec.Struct, array_like=True):
    """The state of one person: sums by type of event, their arm in each experiment, as their newest list says, "" where
    they are in it no more, and their newest events, as lists and events are heard of in any order."""

    sums: dict[str, Sums] = {}
    arms: dict[str, str] = {}
    event_ids: list[int] = []
    newest: list[Taken] = []


class Change(msgspec.Struct, array_like=True):
    """What an experiment is told of a person in one of its arms: what they have, by type of event, and, where an event
    of an `event_type` came, what they have of it now. `erase_user` says that they are to be forgotten."""

    user_id: str
    arm: str
    sums: dict[str, Sums]
    event_type: str = ""
    new: Sums = msgspec.field(default_factory=Sums)


class Member(msgspec.Struct, array_like=True):
    """What a person had, of the metric's type of event and of the guard's, when the experiment first heard of them."""

    metric: Sums
    guard: Sums


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
_member = msgspec.msgpack.Decoder(Member)


def pack(state: Outcomes | Tally | Member) -> bytes:
    """The state as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(state)


def unpack_outcomes(packed: bytes) -> Outcomes:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _outcomes.decode(_checked(packed))


def unpack_tally(packed: bytes) -> Tally:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _tally.decode(_checked(packed))


def unpack_member(packed: bytes) -> Member:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _member.decode(_checked(packed))


def _checked(packed: bytes) -> memoryview:
    if packed[0] != VERSION:
        raise ValueError(f"state of experiments has version {packed[0]}, this code reads {VERSION}")
    return memoryview(packed)[1:]


def show(person: Outcomes, user_id: str, arms: Mapping[str, str], shown_ms: int) -> list[tuple[str, Change]]:
    """The person was given a list with these arms at `shown_ms` (epoch milliseconds), in place; what which experiment
    is to be told. What they did after that, but was heard of before, is an outcome too."""
    later = [one for one in person.newest if one.appended_ms > shown_ms]
    sums = {kind: Sums(one.count, one.spend) for kind, one in person.sums.items()}
    for one in later:
        sums[one.event_type].count -= 1
        sums[one.event_type].spend -= one.spend
    told = []
    for experiment_id, arm in arms.items():
        joins = person.arms.get(experiment_id) != arm
        had = {kind: Sums(one.count, one.spend) for kind, one in (sums if joins else person.sums).items()}
        told.append((experiment_id, Change(user_id, arm, had)))
        for one in later if joins else ():
            told.append((experiment_id, _change(user_id, arm, had, one)))
            had = {kind: Sums(known.count, known.spend) for kind, known in had.items()}
            had[one.event_type] = told[-1][1].new
    # What they were in is to hear of their erasure.
    person.arms = dict.fromkeys(person.arms, "") | dict(arms)
    return told


def take(person: Outcomes, event: Event, appended_ms: int) -> list[tuple[str, Change]]:
    """Take an event that the broker had at `appended_ms`, in place; what which experiment is to be told. An event seen
    before changes nothing."""
    digest = event_digest(event.event_id)
    if digest in person.event_ids:
        return []
    person.event_ids = [*person.event_ids, digest][-_RECENT_IDS:]
    spend = (event.price or 0.0) * (1.0 if event.quantity is None else event.quantity)
    taken = Taken(appended_ms, event.event_type, spend)
    # Most people are in no experiment.
    before = {kind: Sums(one.count, one.spend) for kind, one in person.sums.items()} if person.arms else {}
    told = [(name, _change(event.user_id, arm, before, taken)) for name, arm in person.arms.items() if arm]
    sums = person.sums.setdefault(event.event_type, Sums())
    sums.count += 1
    sums.spend += spend
    person.newest = [*person.newest, taken][-_RECENT_IDS:]
    return told


def _change(user_id: str, arm: str, had: dict[str, Sums], one: Taken) -> Change:
    known = had.get(one.event_type, Sums())
    return Change(user_id, arm, had, one.event_type, Sums(known.count + 1, known.spend + one.spend))


def count(tally: Tally, member: Member | None, change: Change, experiment: Experiment) -> Member | None:
    """Add what is told to the sums of its arm, in place, and return what is kept of the person, None for nothing.
    Whoever is heard of for the first time joins with what they have; what they do from then on is the outcome. Arms
    that are stopped, or that the experiment does not have, are left out."""
    if change.arm not in experiment.arms or change.arm in experiment.stopped:
        return member
    tables = [(tally.arms, experiment.metric, "metric"), (tally.guards, experiment.guard, "guard")]
    if member is None:
        had = [Sums() if one is None else change.sums.get(one.event_type, Sums()) for _, one, _ in tables]
        member = Member(*had)
        for (table, metric, _), base in zip(tables, had, strict=True):
            if metric is not None:
                table.setdefault(change.arm, Moments()).add(_value(Sums(), metric), _value(base, metric))
    for table, metric, name in tables:
        if metric is None or change.event_type != metric.event_type:
            continue
        base, sums = getattr(member, name), table.setdefault(change.arm, Moments())
        old = change.sums.get(metric.event_type, Sums())
        for one, sign in ((old, -1.0), (change.new, 1.0)):
            since = Sums(one.count - base.count, one.spend - base.spend)
            sums.add(_value(since, metric), _value(base, metric), sign)
    return member


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
    # Nobody joins an arm that is stopped, so that its size says nothing.
    shares = {name: arm.share for name, arm in experiment.arms.items() if name not in experiment.stopped}
    sizes = [tally.arms.get(name, Moments()).n for name in shares]
    evidence = log_evidence_of_mismatch(sizes, [share / sum(shares.values()) for share in shares.values()])
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
