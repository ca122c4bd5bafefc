"""Keyed by experiment: sums over the people of its arms, what they show, and arms that are to stop."""

import time
from collections.abc import Iterator
from functools import lru_cache

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor
from pyflink.metrics import Distribution

from model.experiments import arm_of
from model.outcomes import Change, Tally, count, pack, results, unpack_member, unpack_tally
from schema.errors import MessageError
from schema.experiment import (
    ArmResult,
    Experiment,
    Exposure,
    encode_experiment,
    encode_exposure,
    encode_results,
    parse_experiment,
)
from schema.steering import taken_before

MESSAGE = Types.ROW_NAMED(["experiment_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
STOPS = OutputTag("stops", MESSAGE)
EXPOSURES = OutputTag(
    "exposures", Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
)
_EVERY_MS = 2_000


class ExperimentResultsFunction(KeyedCoProcessFunction):
    """In: Row(packed `model.outcomes.Change`), and Row(experiment_id, experiment) or None at its end. Out:
    Row(experiment_id, results), at most every two seconds, and None once it has ended; beside it experiments in which
    an arm is to stop, as their topic has them, and Row(user_id, exposure) of each person who joins an arm.

    Keyed state: `tally`, one packed `model.outcomes.Tally`, and `members`, by user, what they had when they joined. An
    experiment of which more changes than that another arm is stopped begins anew.
    """

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        self._state = runtime_context.get_state(ValueStateDescriptor("tally", Types.PICKLED_BYTE_ARRAY()))
        members = MapStateDescriptor("members", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._members = runtime_context.get_map_state(members)
        self._metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._mismatches: dict[str, int] = {}
        # By experiment and arm, what is said of it.
        self._shown: dict[tuple[str, str], dict[str, Distribution]] = {}
        self._sample_ratio_mismatches = self._metrics.distribution("sample_ratio_mismatches")

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Count what a person has done."""
        (packed,) = value
        change = msgspec.msgpack.decode(bytes(packed), type=Change)
        if change.event_type == "erase_user":
            self._members.remove(change.user_id)
            return
        tally = self._tally()
        experiment = _experiment(tally)
        if experiment is None:
            # Its people's lists may be heard of before it is: they join with their next one.
            return
        if arm_of(experiment, change.user_id) != change.arm:
            # Their last list is one of another definition: they join with their next one.
            return
        kept = self._members.get(change.user_id) if self._members.contains(change.user_id) else None
        member = count(tally, None if kept is None else unpack_member(bytes(kept)), change, experiment)
        if member is not None and kept is None:
            self._members.put(change.user_id, pack(member))
            share, now = experiment.arms[change.arm].share, int(time.time() * 1000)
            exposure = Exposure(change.user_id, experiment.experiment_id, change.arm, share, now)
            yield EXPOSURES, Row(change.user_id, encode_exposure(exposure))
        elif not change.event_type:
            return
        self._state.update(pack(tally))
        now = ctx.timer_service().current_processing_time()
        ctx.timer_service().register_processing_time_timer(now - now % _EVERY_MS + _EVERY_MS)

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Take what the experiment is."""
        experiment_id, payload = value
        try:
            _, experiment = parse_experiment(experiment_id, None if payload is None else bytes(payload))
        except MessageError:
            return
        if experiment is None:
            self._state.clear()
            self._members.clear()
            self._mismatches.pop(experiment_id, None)
            self._sample_ratio_mismatches.update(sum(self._mismatches.values()))
            for (name, _), shown in self._shown.items():
                for metric in shown.values() if name == experiment_id else ():
                    metric.update(0)
            yield Row(experiment_id, None)
            return
        tally = self._tally()
        before = _experiment(tally)
        # Of an arm that is stopped no more what came meanwhile was not counted.
        goes_on = before is not None and set(before.stopped) <= set(experiment.stopped)
        same = goes_on and before is not None and _counted(before) == _counted(experiment)
        if not same:
            tally = Tally()
            self._members.clear()
        tally.definition = encode_experiment(experiment)
        self._state.update(pack(tally))

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator[object]:
        """Say what the experiment shows."""
        tally = self._tally()
        experiment = _experiment(tally)
        if experiment is None:
            return
        found, harms = results(tally, experiment, int(time.time() * 1000))
        self._mismatches[experiment.experiment_id] = int(found.sample_ratio_mismatch)
        self._sample_ratio_mismatches.update(sum(self._mismatches.values()))
        for name, arm in found.arms.items():
            self._show(experiment.experiment_id, name, arm)
        yield Row(experiment.experiment_id, encode_results(found))
        if harms:
            stopped = [*experiment.stopped, *(harm.arm for harm in harms)]
            changed = experiment.model_copy(update={"stopped": stopped})
            # Said once.
            tally.definition = encode_experiment(changed)
            self._state.update(pack(tally))
            yield STOPS, Row(experiment.experiment_id, encode_experiment(changed))

    def _show(self, experiment: str, name: str, arm: ArmResult) -> None:
        """Let the arm's metrics say this."""
        said = {"people": float(arm.people), "difference": arm.difference, "low": arm.low, "high": arm.high}
        if (experiment, name) not in self._shown:
            group = self._metrics.add_group("experiment", experiment).add_group("arm", name)
            self._shown[experiment, name] = {metric: group.distribution(metric) for metric in said}
        for metric, value in said.items():
            # They are integers.
            self._shown[experiment, name][metric].update(int(value * (1 if metric == "people" else 1_000_000)))

    def _tally(self) -> Tally:
        packed = self._state.value()
        return Tally() if packed is None else unpack_tally(packed)


def _experiment(tally: Tally) -> Experiment | None:
    return _parsed(tally.definition) if tally.definition else None


@lru_cache(64)
def _parsed(definition: bytes) -> Experiment | None:
    # Once, and not for every event of its people.
    return taken_before(parse_experiment, definition)


def _counted(experiment: Experiment) -> bytes:
    """What must stay for sums to go on, the order of its arms too, by which people are told apart."""
    return encode_experiment(experiment.model_copy(update={"stopped": []}))
