"""The way of an event through the profile operator's own Python, step by step."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.pipe import ITEMS, SEED
from jobs.settings import load_settings
from model.profile import Profile, apply_event, pack_profile, snapshot, unpack_profile
from model.snapshot import pack_snapshot

_REPEATS, _EVENTS = 7, 2_000


def run(data: Path) -> dict[str, dict[str, float]]:  # noqa: ARG001
    """Microseconds of each step, the least of a few repetitions over `_EVENTS` events, for people with a new, a usual
    and a full profile; and the bytes of each packed profile."""
    return {f"{size} interactions": _measure(size) for size in (1, 20, 200)}


def _measure(size: int) -> dict[str, float]:
    settings = load_settings()
    options, parser = settings.profile_options(), settings.events.parser()()
    random, now = np.random.default_rng(SEED), 1_700_000_000_000
    payloads = [
        json.dumps(
            {
                "event_id": f"{size}-{n}",
                "user_id": "u1",
                "event_type": "view",
                "timestamp": 1_600_000_000_000 + n,
                "item_id": f"i{item}",
            }
        ).encode()
        for n, item in enumerate(random.integers(0, ITEMS, size + _EVENTS).tolist())
    ]
    before = Profile()
    for payload in payloads[:size]:
        apply_event(before, parser.parse(payload, now), options)
    packed = pack_profile(before)
    events = [parser.parse(payload, now) for payload in payloads[size:]]
    profiles = [unpack_profile(packed) for _ in events]
    outcomes = [apply_event(profile, event, options) for profile, event in zip(profiles, events, strict=True)]
    taken = [snapshot(*of, 0, options) for of in zip(profiles, events, outcomes, strict=True)]
    steps: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
        "parse": (parser.parse, [(payload, now) for payload in payloads[size:]]),
        "unpack": (unpack_profile, [(packed,)] * _EVENTS),
        "pack": (pack_profile, [(profile,) for profile in profiles]),
        "snapshot": (snapshot, [(*of, 0, options) for of in zip(profiles, events, outcomes, strict=True)]),
        "pack snapshot": (pack_snapshot, [(one,) for one in taken]),
    }
    times = {name: min(_timed(step, arguments) for _ in range(_REPEATS)) for name, (step, arguments) in steps.items()}
    # A profile takes an event once, so each repetition has its own.
    applied = []
    for _ in range(_REPEATS):
        fresh = [(unpack_profile(packed), event, options) for event in events]
        applied.append(_timed(apply_event, fresh))
    return {**times, "apply": min(applied), "sum": sum(times.values()) + min(applied), "bytes": float(len(packed))}


def _timed(step: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
    """Microseconds a call."""
    started = time.perf_counter()
    for given in arguments:
        step(*given)
    return 1e6 * (time.perf_counter() - started) / len(arguments)
