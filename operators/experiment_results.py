"""Keyed by experiment: sums over the people of its arms, what they show, and arms that are to stop."""

import time
from collections.abc import Iterator

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from model.outcomes import Change, Tally, count, pack, results, unpack_tally
from schema.errors import MessageError
from schema.experiment import Experiment, encode_experiment, encode_results, parse_experiment

MESSAGE = Types.ROW_NAMED(["experiment_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
STOPS = OutputTag("stops", MESSAGE)
_EVERY_MS = 2_000


class ExperimentResultsFunction(KeyedCoProcessFunction):
    """In: Row(packed `model.outcomes.Change`), and Row(experiment_id, experiment) or None at its end. Out:
    Row(experiment_id, results), at most every two seconds, and None once it has ended; and experiments in which an arm
    is to stop, as their topic has them.

    Keyed state `tally`: one packed `model.outcomes.Tally`. An experiment whose arms or metric change begins anew.
    """

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        self._state = runtime_context.get_state(ValueStateDescriptor("tally", Types.PICKLED_BYTE_ARRAY()))
        self._metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._mismatches: dict[str, int] = {}
        self._metrics.gauge("sample_ratio_mismatches", lambda: sum(self._mismatches.values()))

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Count what a person has done."""
        (change,) = value
        tally = self._tally()
        experiment = _experiment(tally)
        if experiment is None:
            # Its people's lists may be heard of before it is; they are few.
            return
        count(tally, msgspec.msgpack.decode(bytes(change), type=Change), experiment)
        self._state.update(pack(tally))
        now = ctx.timer_service().current_processing_time()
        ctx.timer_service().register_processing_time_timer(now - now % _EVERY_MS + _EVERY_MS)
        yield from ()

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Take what the experiment is."""
        experiment_id, payload = value
        try:
            _, experiment = parse_experiment(experiment_id, None if payload is None else bytes(payload))
        except MessageError:
            return
        if experiment is None:
            self._state.clear()
            self._mismatches.pop(experiment_id, None)
            yield Row(experiment_id, None)
            return
        tally = self._tally()
        before = _experiment(tally)
        same = before is not None and _counted(before) == _counted(experiment)
        tally = tally if same else Tally()
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
        yield Row(experiment.experiment_id, encode_results(found))
        if harms:
            stopped = [*experiment.stopped, *(harm.arm for harm in harms)]
            changed = experiment.model_copy(update={"stopped": stopped})
            yield STOPS, Row(experiment.experiment_id, encode_experiment(changed))

    def _tally(self) -> Tally:
        packed = self._state.value()
        return Tally() if packed is None else unpack_tally(packed)


def _experiment(tally: Tally) -> Experiment | None:
    return parse_experiment(None, tally.definition)[1] if tally.definition else None


def _counted(experiment: Experiment) -> tuple[object, ...]:
    """What must stay for sums to go on."""
    arms = {name: arm.share for name, arm in experiment.arms.items()}
    return arms, experiment.control, experiment.metric, experiment.guard, experiment.begin, experiment.end
