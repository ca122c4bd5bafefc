"""Experiments on lists: the compacted topic `experiments`, and what comes of them: `exposures` and
`experiment-results`."""

import sys
from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, Field, model_validator

from schema.event import EventType
from schema.steering import STRICT, parse_steering
from schema.wire import decode

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Outcome = Literal["conversion", "spend", "count"]


class _Strict(BaseModel):
    model_config = STRICT


class Arm(_Strict):
    """What is different for people of this arm, who are `share` of the experiment's: the `order`, learned or that of
    the fixed blend, and whether the sequence model counts. Rules tell arms apart too, by `has(person.arms.summer) &&
    person.arms.summer == 'b'`."""

    share: Annotated[float, Field(gt=0, le=1, strict=False)]
    order: Literal["learned", "fixed"] = "learned"
    sequence: bool = True


class Metric(_Strict):
    """What is counted of a person from their first list of the experiment on: whether there was an event of this type
    (`conversion`), the sum of price times quantity (`spend`), or how many there were (`count`). Of spend no more than
    `cap` counts of a person, so that a few do not decide."""

    event_type: EventType = "purchase"
    outcome: Outcome = "conversion"
    cap: Annotated[float, Field(gt=0, strict=False)] | None = None


class Experiment(_Strict):
    """An experiment. Its people are those whose place in the `layer`, from 0 to 1 by a hash of person and layer, lies
    from `begin` to below `end`: experiments of one layer must not overlap, those of different layers are independent.
    Arms are a hash of person and experiment.

    `planned_people` is for how many, over all arms, the intervals are narrowest; `alpha` how often an experiment
    without an effect may ever look as if it had one. An arm in which the `guard` is worse than in the `control` is
    stopped: its people get what those of the control get. Worse is `less` of it, or, as of dislikes, `more`.
    """

    experiment_id: Name
    layer: Name = "default"
    begin: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    end: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    arms: Annotated[dict[Name, Arm], Field(min_length=2, max_length=26)]
    control: Name
    metric: Metric = Metric()
    guard: Metric | None = None
    guard_harm: Literal["less", "more"] = "less"
    planned_people: Annotated[int, Field(ge=100, le=10**12)] = 20_000
    alpha: Annotated[float, Field(ge=1e-9, lt=0.5)] = 0.05
    stopped: list[Name] = []

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.begin >= self.end:
            faults.append("begin must be below end")
        if abs(sum(arm.share for arm in self.arms.values()) - 1) > 1e-6:
            faults.append("the arms' shares must add up to 1")
        if self.control not in self.arms:
            faults.append(f"control names no arm: {self.control}")
        if unknown := set(self.stopped) - set(self.arms):
            faults.append(f"stopped names no arm: {', '.join(sorted(unknown))}")
        if self.control in self.stopped:
            faults.append("the control cannot be stopped")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Exposure(msgspec.Struct):
    """Key `user_id`: by `at` (epoch milliseconds) a person had been given a list that named their `arm` of an
    experiment, to which they belong with this `propensity`: the arm's share. Said once of each person, but for one who
    moves to another arm, and for an experiment that begins anew."""

    user_id: str
    experiment_id: str
    arm: str
    propensity: float
    at: int


class ArmResult(msgspec.Struct):
    """An arm against the control: how many `people` it has, their `mean`, by how much it differs, the confidence
    sequence's interval at this moment, and its p-value, which are valid however often one looks. `adjusted` says that
    what people did before has been used (CUPED), which has cut the variance by the share `variance_cut`."""

    people: int
    mean: float
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_value: float = 1.0
    adjusted: bool = False
    variance_cut: float = 0.0
    guard_low: float | None = None
    guard_high: float | None = None


class ExperimentResults(msgspec.Struct):
    """Key `experiment_id`: what came of it by `at` (epoch milliseconds). `sample_ratio_mismatch` is an alarm: the arms'
    sizes are not those that were asked for, so that no figure here can be trusted."""

    experiment_id: str
    at: int
    arms: dict[str, ArmResult]
    sample_ratio_mismatch: bool
    stopped: list[str] = []


_RESULTS, _EXPOSURES = msgspec.json.Decoder(ExperimentResults), msgspec.json.Decoder(Exposure)


def parse_experiment(key: str | None, raw: bytes | None) -> tuple[str, Experiment | None]:
    """The experiment's id and the experiment, None where it is ended (no value, or JSON null). Raises MessageError with
    every fault."""
    return parse_steering("experiment", Experiment, key, raw)


def encode_experiment(experiment: Experiment) -> bytes:
    """JSON."""
    return experiment.model_dump_json(exclude_defaults=True).encode()


def decode_results(raw: bytes) -> ExperimentResults:
    """The results in `raw`; raises MessageError."""
    return decode(_RESULTS, raw, sys.maxsize)


def encode_results(results: ExperimentResults) -> bytes:
    """JSON."""
    return msgspec.json.encode(results)


def decode_exposure(raw: bytes) -> Exposure:
    """The exposure in `raw`; raises MessageError."""
    return decode(_EXPOSURES, raw, sys.maxsize)


def encode_exposure(exposure: Exposure) -> bytes:
    """JSON."""
    return msgspec.json.encode(exposure)
