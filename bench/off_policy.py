"""Off-policy estimates beside what really happened: the Open Bandit data, in which two policies ran side by side.

Source: Saito, Aihara, Matsutani, Narita, "Open Bandit Dataset and Pipeline: Towards Realistic and Reproducible
Off-Policy Evaluation", NeurIPS 2021 Datasets and Benchmarks.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from cli.wheel import take_out
from model.off_policy import doubly_robust, inverse_propensity, self_normalised

_WHEEL = "obp==0.4.1 --hash=sha256:87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
CAMPAIGNS, POLICIES = ("all", "men", "women"), {"random": "bts", "bts": "random"}
_SHRINKAGE = 1000.0
"""How many impressions of the average an item's own rate of clicks is mixed with."""

Floats = npt.NDArray[np.float64]


def run(data: Path) -> dict[str, dict[str, float]]:
    """For each campaign and policy, in clicks per 1,000 impressions: what it `got` on 10,000 impressions, and what is
    estimated of it from the other policy's 10,000, by inverse propensity scores, self-normalised, and doubly robust;
    each with its standard error. `off` is by how many standard errors of the difference the doubly robust is off."""
    members = {f"{policy}-{c}.csv": f"obp/dataset/obd/{policy}/{c}/{c}.csv" for policy in POLICIES for c in CAMPAIGNS}
    folder = take_out(data / "datasets" / "open-bandit", _WHEEL, members)
    columns = ["item_id", "position", "click", "propensity_score"]
    logs = {name: pl.read_csv(folder / name, columns=columns) for name in members}
    return {
        f"{campaign}: {target}": _compared(logs[f"{logged}-{campaign}.csv"], logs[f"{target}-{campaign}.csv"])
        for campaign in CAMPAIGNS
        for logged, target in POLICIES.items()
    }


def _compared(logged: pl.DataFrame, target: pl.DataFrame) -> dict[str, float]:
    items = 1 + max(int(log["item_id"].to_numpy().max()) for log in (logged, target))
    chances = _chances(target, items)
    item, position = logged["item_id"].to_numpy(), logged["position"].to_numpy() - 1
    clicks = logged["click"].to_numpy().astype(np.float64)
    given = clicks, logged["propensity_score"].to_numpy(), chances[position, item]
    predicted, value = np.empty(len(clicks)), np.empty(len(clicks))
    for half in (0, 1):
        fitted = np.arange(len(clicks)) % 2 != half
        rates = _rates(item[fitted], clicks[fitted], items)
        predicted[~fitted], value[~fitted] = rates[item[~fitted]], (chances @ rates)[position[~fitted]]
    got = target["click"].to_numpy()
    truth, error = got.mean(), got.std(ddof=1) / len(got) ** 0.5
    robust = doubly_robust(*given, predicted, value)
    estimates = {"ips": inverse_propensity(*given), "snips": self_normalised(*given), "dr": robust}
    row = {"got": 1000 * float(truth), "got ±": 1000 * float(error)}
    for name, found in estimates.items():
        row |= {name: 1000 * found.value, f"{name} ±": 1000 * found.standard_error}
    return {**row, "off": float((robust.value - truth) / np.hypot(robust.standard_error, error))}


def _chances(log: pl.DataFrame, items: int) -> Floats:
    """Each item's chance [3, items] of being shown in each of the three positions. Neither policy looks at the person;
    one is uniform, as its propensities say, and the other learned as it went: of it the chances are how often it showed
    each item, all in all."""
    if log["propensity_score"].n_unique() == 1:
        return np.full((3, items), log["propensity_score"][0])
    shown = np.zeros((3, items))
    np.add.at(shown, (log["position"].to_numpy() - 1, log["item_id"].to_numpy()), 1)
    return np.asarray(shown / shown.sum(axis=1, keepdims=True))


def _rates(items: npt.NDArray[np.int64], clicks: Floats, count: int) -> Floats:
    """Clicks per impression [count] of each item, shrunk to the mean."""
    shown, clicked = np.bincount(items, minlength=count), np.bincount(items, clicks, minlength=count)
    return np.asarray((clicked + _SHRINKAGE * clicks.mean()) / (shown + _SHRINKAGE))
