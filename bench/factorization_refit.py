"""Item vectors that follow the stream against vectors solved again from everything: what that costs in nDCG."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from bench.quality import replay, row_of
from cli.evaluate import read_events
from cli.movielens import write_csv
from model.batch import Rows, to_batch
from model.item_index import ItemIndex
from model.matrix_factorization import MatrixFactorization, MatrixFactorizationOptions
from model.snapshot import Snapshot

SWEEPS, EVERY = 5, 1000


class _Refit(MatrixFactorization):
    """Every step solves all users and all items again, several times over."""

    def _step(self) -> tuple[Rows, Rows]:
        items = users = np.empty(0, np.int64)
        for _ in range(SWEEPS):
            self._open_users = dict.fromkeys(np.flatnonzero(self._reservoir[:, 0] >= 0).tolist())
            self._stale[:] = 1
            items, users = super()._step()
        return items, users


class _Peer:
    """The factorisation alone, behind the calls of a replay."""

    def __init__(self, model: MatrixFactorization) -> None:
        self._model, self._index = model, ItemIndex()
        self._histories: defaultdict[str, list[str]] = defaultdict(list)

    def recommend(self, user: str, excluded: Iterable[str], k: int) -> list[str]:
        """As `Peer.recommend`."""
        if not self._histories[user]:
            return []
        batch = to_batch([self._snapshot(user)], self._index, learn=False)
        scores = np.empty((1, len(self._index)), np.float32)
        self._model.score(self._model.query(batch.items, batch.weights), scores)
        scores[0, self._index.rows(excluded)] = -np.inf
        return [self._index.ids[item] for item in np.argsort(-scores[0])[:k].tolist()]

    def learn(self, user: str, item: str) -> None:
        """As `Peer.learn`."""
        before = [other for other in self._histories[user] if other != item]
        self._histories[user] = [item, *before][: self._model.options.history]
        batch = to_batch([self._snapshot(user)], self._index, learn=True)
        self._model.resize(len(self._index))
        self._model.learn(batch)

    def _snapshot(self, user: str) -> Snapshot:
        history = self._histories[user]
        return Snapshot(user, "", 0, 0, history, [1.0] * len(history), 0)


def run(data: Path) -> dict[str, dict[str, float]]:
    """MovieLens-100k, seen left out, prequential over the last half: the factorisation alone as the job learns it, and
    solved again in five sweeps over all users and items after every 1,000 events. The last row is the nDCG's ratio."""
    torch.set_num_threads(1)
    events, _ = read_events(write_csv(data))
    options = MatrixFactorizationOptions()
    everything = MatrixFactorizationOptions(
        step=EVERY, step_users=options.reservoir, step_items=len(events), step_item_users=options.reservoir
    )
    cpu = torch.device("cpu")
    models = {"streamed": MatrixFactorization(options, cpu), "solved again": _Refit(everything, cpu)}
    rows = {name: row_of(replay(_Peer(model), events, True, 1)) for name, model in models.items()}
    return {**rows, "ratio": {"ndcg@20": rows["streamed"]["ndcg@20"] / rows["solved again"]["ndcg@20"]}}
