"""What many users cost: events/s and recovery with a million of them in state, and what a full profile takes there."""

import threading
import time
from pathlib import Path

import numpy as np
import psutil

from bench.pipe import ITEMS, SEED, START, Pipe, checkpointed_bytes, taskmanager_of
from cli.bootstrap import History, send_profiles
from deploy.local.stack import Stack, StackError
from jobs.settings import load_settings
from model.profile import Profile, ProfileOptions, apply_event, pack_profile
from schema.event import Event

FEW, MANY, TIMED = 10_000, 1_000_000, 60_000
FULL_USERS, FULL_HISTORY = 10_000, 200
_STEP_S = 0.1
_CHECKPOINTS, _CHECKPOINT_S, _RATE = 6, 5.0, 100.0


def run(data: Path, many: int = MANY) -> dict[str, float]:
    """One run of the full job: events/s over `TIMED` events of `FEW` users, and of as many users as `many` once each of
    those has had an event; seconds from kill -9 of the TaskManager that holds their state to the first new list, and of
    these until Flink knows that it is lost; and, in a job of its own, bytes of checkpointed state a user with
    `FULL_HISTORY` interactions, over the bytes of the packed profile.

    Raises StackError where the job stands still.
    """
    stack = Stack(data / "bench", data / "jars")
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        few, all_of_them, recovery = _growth(stack, many)
        packed, on_disk = _profile_bytes(stack)
    finally:
        stack.down()
    return {
        "users": many,
        "few_events_per_second": few,
        "many_events_per_second": all_of_them,
        "users_ratio": all_of_them / few,
        **recovery,
        "packed_bytes": packed,
        "state_bytes": on_disk,
        "profile_ratio": on_disk / packed,
    }


def _growth(stack: Stack, many: int) -> tuple[float, float, dict[str, float]]:
    pipe = Pipe(stack, Path("jobs/recommend.py"))
    pipe.send_catalogue()
    pipe.send(TIMED, users=FEW)
    job = pipe.submit()
    pipe.until_seen()
    first = pipe.sent
    everybody = np.random.default_rng(SEED).permutation(many)
    pipe.send_of((FEW + everybody).tolist(), (everybody % ITEMS).tolist())
    pipe.until_seen()
    second = pipe.sent
    pipe.send(TIMED, users=many, first_user=FEW)
    pipe.until_seen()
    lists = pipe.lists()
    rates = pipe.rate(lists, TIMED // 4, first), pipe.rate(lists, second + TIMED // 4, pipe.sent)
    checkpointed_bytes(stack, job)
    recovery = _recovery(stack, pipe, job)
    pipe.cancel()
    return *rates, recovery


def _recovery(stack: Stack, pipe: Pipe, job: str) -> dict[str, float]:
    """Kill the TaskManager that the profiles are on; what supervises the stack starts another."""
    over = threading.Event()
    watch = threading.Thread(target=stack.supervise, args=(over, lambda _: None), daemon=True)
    watch.start()
    try:
        lost = taskmanager_of(stack, job, "profile")
        killed, killed_ms = time.monotonic(), 1000 * time.time()
        psutil.Process(lost).kill()
        # Not the state, which Flink shows for three seconds after it has changed.
        while (noticed_ms := stack.rest(f"/jobs/{job}")["timestamps"]["RESTARTING"]) < killed_ms:
            time.sleep(_STEP_S)
            if time.monotonic() > killed + 120:
                raise StackError("Flink did not notice the loss of a TaskManager in two minutes.")
        pipe.send(100, rate=100)
        pipe.until_seen(pipe.sent - 100)
        return {"recovery_s": time.monotonic() - killed, "detection_s": (noticed_ms - killed_ms) / 1000}
    finally:
        over.set()
        watch.join()


def _profile_bytes(stack: Stack) -> tuple[float, float]:
    """Bytes of a full packed profile, and of its state in a checkpoint while people go on acting: on average over some
    checkpoints, as each holds some people twice until RocksDB has merged its files."""
    random = np.random.default_rng(SEED)
    profiles = {f"u{user}": _full_profile(random) for user in range(FULL_USERS)}
    pipe = Pipe(stack, Path("jobs/recommend.py"))
    job = pipe.submit()
    pipe.send(1)
    pipe.until_seen()
    settings = load_settings()
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": stack.bootstrap_servers})
    send_profiles(History(FULL_USERS * FULL_HISTORY, profiles), settings.model_copy(update={"kafka": kafka}))
    sizes = []
    for _ in range(_CHECKPOINTS):
        pipe.send(round(_RATE * _CHECKPOINT_S), users=FULL_USERS, rate=_RATE)
        pipe.until_seen()
        sizes.append(checkpointed_bytes(stack, job))
    pipe.cancel()
    packed = sum(map(len, profiles.values()))
    return packed / FULL_USERS, sum(sizes) / len(sizes) / FULL_USERS


def _full_profile(random: np.random.Generator) -> bytes:
    """Of views at random in ninety days."""
    profile, options = Profile(), ProfileOptions()
    items, times = random.integers(0, ITEMS, FULL_HISTORY), START - random.integers(0, 90 * 86_400_000, FULL_HISTORY)
    for item, time_ms in zip(items.tolist(), np.sort(times).tolist(), strict=True):
        apply_event(profile, Event(random.bytes(8).hex(), "", "view", time_ms, f"i{item}"), options)
    return pack_profile(profile)
