"""The main job with a model that fails at one item: what the fault suite submits, to see the other events served."""

from collections.abc import Sequence

from jobs.recommend import main
from operators.learner import LearnerFunction
from operators.scorer import ScorerFunction

from model.blend import Recommender  # isort: skip, the operators prepare numba
from model.delta import CatalogueChange, Steering, Delta  # isort: skip, the operators prepare numba
from model.learned_blend import LearnedBlend
from model.ranked_list import RankedList
from model.snapshot import Snapshot

# As in load.py, which no worker can import.
POISON = "poison"


class PoisonedRecommender(Recommender):
    """Fails on each event about the item `POISON`."""

    def learn(
        self,
        snapshots: Sequence[Snapshot],
        catalogue: Sequence[CatalogueChange] = (),
        train: bool = True,
        steering: Sequence[Steering] = (),
    ) -> Delta:
        """Fails when half of the work is done, as a fault would."""
        delta = super().learn(snapshots, catalogue, train, steering)
        _fail_at_poison(snapshots)
        return delta

    def recommend(
        self,
        snapshots: Sequence[Snapshot],
        k: int,
        blend: LearnedBlend | None = None,
        sequence: bool = True,
        now_ms: int | None = None,
    ) -> list[RankedList]:
        """Fails for the whole block."""
        _fail_at_poison(snapshots)
        return super().recommend(snapshots, k, blend, sequence, now_ms)


class PoisonedLearner(LearnerFunction):
    """The learner with that model."""

    recommender = PoisonedRecommender


class PoisonedScorer(ScorerFunction):
    """The scorer with that model."""

    recommender = PoisonedRecommender


def _fail_at_poison(snapshots: Sequence[Snapshot]) -> None:
    if any(snapshot.item_id == POISON for snapshot in snapshots):
        raise ArithmeticError(f"the model cannot bear {POISON}")


if __name__ == "__main__":
    main(PoisonedLearner, PoisonedScorer)
