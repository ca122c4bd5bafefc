"""`chaos`: faults under load on a real broker and cluster, and a recount of what was lost or doubled."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from cli.common import DATA, Data, Json, console, progress
from deploy.chaos.faults import Faults, schedule
from deploy.chaos.load import Load
from deploy.chaos.recount import Recount, compare
from deploy.chaos.watcher import Watcher
from deploy.local.stack import Stack, StackError
from deploy.local.topics import create_topics, default_topics

_JOB, _EXPORT = Path("deploy/chaos/poisoned_job.py"), Path("deploy/chaos/export_model_job.py")
_RATE, _PARTITIONS = 100.0, 4
_GAP_S, _DEAD_S = 1.0, 180.0


def chaos(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long new faults are begun.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the events and of the order of faults.")] = 1,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Break processes, disk, clocks and messages under load, then recount. Exit status 1 where anything was lost or
    doubled.

    A stack of its own is started under the data folder, with supervision, and stopped at the end.
    """
    with progress.status("Starting") as spinner:
        report = run(Stack(data / "chaos", data / "jars"), minutes, seed, spinner.update)
    if as_json:
        print(json.dumps(report))
    else:
        _show(report)
    if report["lost"] or report["doubled"]:
        raise typer.Exit(1)


def run(
    stack: Stack, minutes: float, seed: int, tell: Callable[[str], None] = lambda _: None, at_least: int = 0
) -> dict[str, Any]:
    """The suite on a stack, whose data are lost, for so long, and until there were `at_least` so many faults; returns
    what `--json` prints. Raises StackError where the stack does not start, or lists stop."""
    stack.down()
    shutil.rmtree(stack.data, ignore_errors=True)
    # Each event is to have its list, so that a list that did not change says that the event was counted.
    os.environ |= {"HEADRACE_LISTS__SEND_UNCHANGED": "true", "HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS": "2000"}
    over = threading.Event()
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        create_topics(stack.bootstrap_servers, default_topics(_PARTITIONS))
        stack.submit(_JOB)
        load = Load(stack.bootstrap_servers, seed, _RATE)
        watcher = Watcher(stack.bootstrap_servers, load.sent_at)
        load.start()
        watcher.start()
        _first_list_after(time.monotonic(), watcher, load)
        supervision = threading.Thread(target=stack.supervise, args=(over, progress.log), daemon=True)
        supervision.start()
        faults = Faults(stack, load, min(60.0, minutes * 6))
        done: list[dict[str, Any]] = []
        started = time.monotonic()
        for kind in schedule(list(faults.kinds), seed):
            if time.monotonic() > started + minutes * 60 and len(done) >= at_least:
                break
            tell(f"{len(done)} faults done, {watcher.lists} lists. Now: {kind}")
            begun = time.monotonic()
            faults.kinds[kind]()
            # Of a process killed the time counts from the blow, of what lasts from its end.
            since = begun if kind.startswith("kill") else time.monotonic()
            _first_list_after(time.monotonic(), watcher, load)
            seconds = time.monotonic() - since
            done.append({"fault": kind, "at_s": round(begun - started, 1), "recovery_s": round(seconds, 2)})
            time.sleep(_GAP_S)
        tell(f"{len(done)} faults done. Recounting")
        load.stop()
        recount = _recount(stack)
        _settle(watcher, recount)
        watcher.stop()
        over.set()
        supervision.join()
        submission = stack.state.submission
        assert submission is not None
        savepoint = stack.stop_with_savepoint(submission.runs[-1])
        return _report(done, recount, watcher, _exported(stack, savepoint))
    finally:
        over.set()
        stack.down()


def _first_list_after(moment: float, watcher: Watcher, load: Load) -> None:
    """Wait for the first list for an event that was sent after the moment."""
    while watcher.newest_sent <= moment:
        failure = watcher.failure or load.failure
        if failure is not None:
            raise StackError(f"The fault suite lost the broker: {failure!r}") from failure
        if time.monotonic() > moment + _DEAD_S:
            raise StackError(f"No list came within {_DEAD_S:.0f} s of a fault.")
        time.sleep(0.02)


def _recount(stack: Stack) -> Recount:
    from kafka import KafkaConsumer, TopicPartition

    recount = Recount()
    consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest", group_id=None)
    try:
        for number in range(_PARTITIONS):
            partition = TopicPartition("events", number)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            end = consumer.end_offsets([partition])[partition]
            while consumer.position(partition) < end:
                for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                    recount.take(records)
    finally:
        consumer.close()
    return recount


def _settle(watcher: Watcher, recount: Recount) -> None:
    """Wait for the lists of the last events; what does not come is counted as lost."""
    deadline = time.monotonic() + _DEAD_S
    while time.monotonic() < deadline:
        served = all(watcher.versions.get(user, 0) >= count for user, count in recount.events.items())
        if served and {(letter["partition"], letter["offset"]) for letter in watcher.dead} >= recount.dead:
            break
        time.sleep(0.2)
    # What should not come would come soon.
    time.sleep(2)


def _exported(stack: Stack, savepoint: str) -> Any:
    """The statistics that the learner's state holds: interactions by item, and weights by pair."""
    file = stack.data / "model"
    stack.submit(_EXPORT, str(file), savepoint=savepoint, drop_unknown_state=True)
    deadline = time.monotonic() + _DEAD_S
    while not file.exists() or stack.running_jobs():
        if time.monotonic() > deadline:
            raise StackError("The model could not be read from the savepoint.")
        time.sleep(0.2)
    from jobs.settings import load_settings
    from model.blend import Recommender

    model = Recommender.unpack(file.read_bytes(), load_settings().blend_options())
    ids, cooccurrence = model.index.ids, model.cooccurrence
    items = {ids[row]: float(count) for row, count in enumerate(cooccurrence.counts) if count > 0}
    neighbours, weights = cooccurrence.neighbours.numpy(), cooccurrence.weights.numpy()
    rows, slots = np.nonzero(neighbours >= 0)
    found = zip(rows, slots, strict=True)
    pairs = {(ids[row], ids[neighbours[row, slot]]): float(weights[row, slot]) for row, slot in found}
    return items, pairs


def _report(done: list[dict[str, Any]], recount: Recount, watcher: Watcher, model: Any) -> dict[str, Any]:
    items, pairs = model
    dead = {(letter["partition"], letter["offset"]) for letter in watcher.dead if letter["topic"] == "events"}
    counts = {
        "profiles": compare(dict(recount.events), dict(watcher.versions)),
        "interactions by item": compare(dict(recount.items), items),
        "pair statistics": compare(dict(recount.pairs), pairs),
        "dead letters": (len(recount.dead - dead), len(dead - recount.dead)),
    }
    seconds = [fault["recovery_s"] for fault in done]
    return {
        "faults": len(done),
        "messages": recount.messages,
        "events": sum(recount.events.values()),
        "users": len(recount.events),
        "pairs": len(recount.pairs),
        "dead_letters": len(recount.dead),
        "lists": watcher.lists,
        "lost": sum(lost for lost, _ in counts.values()),
        "doubled": sum(doubled for _, doubled in counts.values()),
        "recovery_seconds_median": median(seconds) if seconds else None,
        "recovery_seconds": seconds,
        "each": done,
        "counts": {name: {"lost": lost, "doubled": doubled} for name, (lost, doubled) in counts.items()},
    }


def _show(report: dict[str, Any]) -> None:
    faults = Table("Fault", "At, s", "First new list after, s")
    for fault in report["each"]:
        faults.add_row(fault["fault"], f"{fault['at_s']:.0f}", f"{fault['recovery_s']:.1f}")
    console.print(faults)
    counts = Table("Counted again", "Lost", "Doubled")
    for name, count in report["counts"].items():
        counts.add_row(name, str(count["lost"]), str(count["doubled"]))
    console.print(counts)
    console.print(
        f"{report['faults']} faults, {report['messages']:,} messages, {report['events']:,} events of {report['users']} "
        f"users, {report['pairs']:,} pairs, {report['dead_letters']:,} dead letters; "
        f"median {report['recovery_seconds_median']:.1f} s to the first new list; "
        f"lost {report['lost']}, doubled {report['doubled']}."
    )


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Development")(chaos)
