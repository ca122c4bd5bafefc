"""What freshness is worth: one replay with a model, and with profiles, that learn at once, now and then, or never."""

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cli.common import progress
from cli.evaluate import read_events
from cli.movielens import write_csv
from jobs.settings import load_settings
from model.evaluate import Freshness, evaluate

K = 20
MINUTE, HOUR = 60_000.0, 3_600_000.0
SCHEDULES = {
    "all_live": Freshness(),
    "model_5_minutes": Freshness(5 * MINUTE),
    "model_1_hour": Freshness(HOUR),
    "model_never": Freshness(math.inf),
    "profiles_1_hour": Freshness(0, HOUR),
    "all_5_minutes": Freshness(5 * MINUTE, 5 * MINUTE),
    "all_1_hour": Freshness(HOUR, HOUR),
    "all_never": Freshness(math.inf, math.inf),
}
TAOBAO = Path("../shared/data/taobao-userbehavior.csv")


def run(data: Path) -> dict[str, float]:
    """nDCG@20 over the last half of each data set under each schedule; "never" is from the second half on. Also drawn,
    in `freshness-gain.png` in the data folder. Seen films are left out, shop items may come again."""
    files = {"movielens": write_csv(data), "taobao": TAOBAO}
    for name, file in list(files.items()):
        if not file.exists():
            progress.print(f"{name} left out: no file {file}")
            del files[name]
    tasks = [(name, file, schedule) for name, file in files.items() for schedule in SCHEDULES]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        scores = list(pool.map(_ndcg, *zip(*tasks, strict=True)))
    figures = {f"{name}_{schedule}": score for (name, _, schedule), score in zip(tasks, scores, strict=True)}
    _draw(figures, list(files), data / "freshness-gain.png")
    return figures


def _ndcg(name: str, file: Path, schedule: str) -> float:
    import torch

    torch.set_num_threads(1)
    events, catalogue = read_events(file)
    settings = load_settings()
    options = (settings.profile_options(), settings.blend_options())
    fresh = SCHEDULES[schedule]
    report = evaluate(events, K, name == "movielens", *options, catalogue=catalogue, freshness=fresh)
    return report.all.means()["ndcg"]


def _draw(figures: dict[str, float], names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        values = [figures[f"{name}_{schedule}"] for schedule in SCHEDULES]
        bars = axis.barh([schedule.replace("_", " ") for schedule in SCHEDULES], values)
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.invert_yaxis()
        axis.set(title=name, xlabel=f"nDCG@{K}, last half", xlim=(0, 1.15 * max(values)))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
