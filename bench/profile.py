"""The way of an event through the profile operator's own Python, step by step, measured by pyperf in processes of its
own. What crossing, state and emitting cost around it `threads` tells."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyperf

from model.profile import Profile, ProfileOptions, apply_event, pack_profile, snapshot, unpack_profile
from model.snapshot import pack_snapshot
from schema.event import EventParser

# Each step is measured in processes of its own: nothing that takes long to import belongs here.
_SIZES, _ITEMS, _SEED, _NOW = (1, 20, 200), 10_000, 7, 1_700_000_000_000
_HOW = ("--processes=2", "--values=5", "--warmups=1", "--min-time=0.02", "--inherit-environ=PYTHONPATH", "--quiet")


def run(data: Path) -> dict[str, dict[str, float]]:  # noqa: ARG001
    """Microseconds of each step, the median of pyperf's values, for people with a new, a usual and a full profile;
    their `sum`, and the `bytes` of each packed profile."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "steps.json"
        subprocess.run([sys.executable, __file__, *_HOW, "-o", str(file)], check=True, stdout=sys.stderr)
        found = pyperf.BenchmarkSuite.load(str(file))
    figures: dict[str, dict[str, float]] = {}
    for benchmark in found:
        size, step = benchmark.get_name().split(": ")
        figures.setdefault(size, {})[step] = 1e6 * benchmark.median()
    for size, steps in zip(_SIZES, figures.values(), strict=True):
        steps["sum"] = sum(steps.values())
        steps["bytes"] = float(len(pack_profile(_Person(size).profile)))
    return figures


class _Person:
    """Somebody with so many interactions, and what they do next."""

    def __init__(self, size: int) -> None:
        self.options, self.parser = ProfileOptions(), EventParser()
        items = np.random.default_rng(_SEED).integers(0, _ITEMS, size + 1).tolist()
        payloads = [self._payload(n, item) for n, item in enumerate(items)]
        self.profile, self.payload = Profile(), payloads[-1]
        for payload in payloads[:-1]:
            apply_event(self.profile, self.parser.parse(payload, _NOW), self.options)
        self.event = self.parser.parse(self.payload, _NOW)

    @staticmethod
    def _payload(number: int, item: int) -> bytes:
        view = {"event_id": f"e{number}", "user_id": "u1", "event_type": "view", "item_id": f"i{item}"}
        return json.dumps(view | {"timestamp": 1_600_000_000_000 + number}).encode()


def _measure(runner: pyperf.Runner, size: int) -> None:
    one, name = _Person(size), f"{size} interactions"
    packed = pack_profile(one.profile)

    def apply(loops: int) -> float:
        # A profile takes an event once.
        profiles = [unpack_profile(packed) for _ in range(loops)]
        started = time.perf_counter()
        for profile in profiles:
            apply_event(profile, one.event, one.options)
        return time.perf_counter() - started

    after = unpack_profile(packed)
    given = (after, one.event, apply_event(after, one.event, one.options), 0, one.options)
    runner.bench_func(f"{name}: parse", one.parser.parse, one.payload, _NOW)
    runner.bench_func(f"{name}: unpack", unpack_profile, packed)
    runner.bench_time_func(f"{name}: apply", apply)
    runner.bench_func(f"{name}: pack", pack_profile, after)
    runner.bench_func(f"{name}: snapshot", snapshot, *given)
    runner.bench_func(f"{name}: pack snapshot", pack_snapshot, snapshot(*given))


if __name__ == "__main__":
    pyperf_runner = pyperf.Runner()
    for interactions in _SIZES:
        _measure(pyperf_runner, interactions)
