"""Which experiments a person is in, and in which arms: by hashes alone, so that everybody who asks gets the same.

Layers are those of Tang, Agarwal, O'Brien, Meyer, "Overlapping experiment infrastructure: more, better, faster
experimentation", KDD 2010, section 4.
"""

from collections.abc import Iterable
from hashlib import blake2b

from schema.errors import MessageError, shown
from schema.experiment import Arm, Experiment


class Experiments:
    """The experiments that run, by their ids."""

    def __init__(self) -> None:
        self.running: dict[str, Experiment] = {}

    def __copy__(self) -> "Experiments":
        other = Experiments()
        other.running = dict(self.running)
        return other

    def put(self, experiment_id: str, experiment: Experiment | None) -> None:
        """Take an experiment in the place of what it was before, None for its end. Raises MessageError where it has
        people in common with another of its layer; then that one, and what it was before, stay."""
        if experiment is not None:
            for other in self.running.values():
                same = other.layer == experiment.layer and other.experiment_id != experiment_id
                if same and other.begin < experiment.end and experiment.begin < other.end:
                    reason = f"overlaps {other.experiment_id}, which has {other.begin:g} to {other.end:g} of that layer"
                    raise MessageError("bad_experiment", "layer", shown(experiment.layer), reason)
        self.running.pop(experiment_id, None)
        if experiment is not None:
            self.running[experiment_id] = experiment

    def arms_of(self, user_id: str) -> dict[str, str]:
        """The name of the person's arm in each experiment that they are in."""
        return {one.experiment_id: arm for one in self.running.values() if (arm := arm_of(one, user_id)) is not None}

    def effective(self, arms: dict[str, str]) -> dict[str, str]:
        """Those arms, the control where one is stopped."""
        running = self.running
        return {one: running[one].control if arm in running[one].stopped else arm for one, arm in arms.items()}

    def settings_of(self, arms: dict[str, str]) -> Iterable[Arm]:
        """What those arms make different."""
        return (self.running[experiment_id].arms[name] for experiment_id, name in arms.items())


def arm_of(experiment: Experiment, user_id: str) -> str | None:
    """The name of the person's arm, None where they are not in the experiment."""
    if not experiment.begin <= _place(f"layer:{experiment.layer}:{user_id}") < experiment.end:
        return None
    place, total = _place(f"experiment:{experiment.experiment_id}:{user_id}"), 0.0
    for name, arm in experiment.arms.items():
        total += arm.share
        if place < total:
            return name
    return next(reversed(experiment.arms))


def _place(text: str) -> float:
    """From 0 to below 1, by six bytes of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2.0**48
