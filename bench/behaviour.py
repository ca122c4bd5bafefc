"""Streamed counts of behaviour against a recount of the same events, through lateness, duplicates and a kill."""

import json
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from bench.quality import TAOBAO
from cli.common import progress
from cli.evaluate import read_events
from deploy.local.stack import Stack, StackError, still_running
from deploy.local.topics import create_topics, default_topics
from schema.event import Event, encode_event

GAP_MS, HOUR_MS, DAY_MS, LATE_MS = 1_800_000, 3_600_000, 86_400_000, 600_000
TOPICS = ("sessions", "funnel-stats", "trends")
_STEPS = ("strict_carted", "strict_purchased", "any_carted", "any_purchased")
_WAIT_S = 300.0
Counts = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]


def run(data: Path) -> dict[str, dict[str, float]]:
    """The shop's clicks, each up to ten minutes late in random order, some twice, and a TaskManager killed in the
    middle: of sessions, funnels and trends how many were `counted`, and how many `differ` from a recount."""
    if not TAOBAO.exists():
        raise StackError(f"There is no file {TAOBAO}.")
    events, catalogue = read_events(TAOBAO)
    categories = {item_id: item.category[0] for item_id, item in catalogue.items() if item.category}
    progress.print(f"{len(events):,} events")
    stack = Stack(data / "bench-behaviour", data / "jars")
    # What an earlier run left would be read too.
    shutil.rmtree(stack.data, ignore_errors=True)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        found = streamed(stack, events, categories)
    finally:
        stack.down()
    expected = recount(events, categories)
    rows = {}
    for name in TOPICS:
        keys = found[name].keys() | expected[name].keys()
        differ = sum(found[name].get(key) != expected[name].get(key) for key in keys)
        rows[name] = {"counted": float(len(found[name])), "differ": float(differ)}
    return rows


def streamed(
    stack: Stack, events: list[Event], categories: dict[str, str], partitions: int = 1, seed: int = 1
) -> Counts:
    """What the job sends of the events, which reach it late and some twice, on so many partitions of their topic, and
    of which the TaskManagers that run it are killed once. `categories` are those of the items."""
    from kafka import KafkaProducer

    create_topics(stack.bootstrap_servers, default_topics(partitions))
    producer = KafkaProducer(bootstrap_servers=stack.bootstrap_servers)
    for item_id, category in categories.items():
        value = json.dumps({"item_id": item_id, "category": [category]}).encode()
        producer.send("items", value, key=item_id.encode())
    producer.flush()
    stack.submit(Path("jobs/behaviour.py"))
    _until_taken(stack, len(categories))
    chance = random.Random(seed)
    sent = [event for event in events for _ in range(2 if chance.random() < 0.01 else 1)]
    sent.sort(key=lambda event: event.timestamp + chance.uniform(0, LATE_MS - 1))
    for event in sent[: len(sent) // 2]:
        producer.send("events", encode_event(event), key=event.user_id.encode())
    producer.flush()
    time.sleep(5)
    for pid in stack.taskmanager_pids:
        killed = psutil.Process(pid)
        killed.kill()
        if still_running([killed], 10):
            raise StackError(f"{pid} was killed and runs")
    stack.ensure()
    for event in sent[len(sent) // 2 :]:
        producer.send("events", encode_event(event), key=event.user_id.encode())
    # The end of all windows, once for each partition.
    producer.flush()
    last = max(event.timestamp for event in events)
    for partition in range(partitions):
        end = Event(f"end {partition}", "~end", "search", last + 3 * DAY_MS, query="end")
        producer.send("events", encode_event(end), partition=partition)
    producer.flush()
    producer.close()
    counted = max(event.timestamp for event in events if event.item_id is not None)
    return _collected(stack, {event.user_id for event in events}, counted)


def recount(events: Iterable[Event], categories: dict[str, str]) -> Counts:
    """The same by plain loops over all events in the order of their times."""
    sessions: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    ordered = sorted(events, key=lambda event: event.timestamp)
    of_users: dict[str, list[Event]] = defaultdict(list)
    firsts: dict[tuple[int, str, str], dict[str, int]] = defaultdict(dict)
    hours: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    people: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for event in ordered:
        of_users[event.user_id].append(event)
        category = categories.get(event.item_id or "")
        if event.item_id is not None:
            day = event.timestamp // DAY_MS * DAY_MS
            firsts[day, event.user_id, event.item_id].setdefault(event.event_type, event.timestamp)
        for kind, of in (("item", event.item_id), ("category", category)):
            if of is not None:
                hour = event.timestamp // HOUR_MS
                hours[kind, of][hour] += 1
                people[kind, of, hour].add(event.user_id)
    for user, own in of_users.items():
        parts: list[list[Event]] = []
        for event in own:
            if parts and event.timestamp - parts[-1][-1].timestamp <= GAP_MS:
                parts[-1].append(event)
            else:
                parts.append([event])
        for part in parts:
            kinds = Counter(event.event_type for event in part)
            counts = len(part), kinds["view"], kinds["add_to_cart"], kinds["purchase"]
            items = len({event.item_id for event in part if event.item_id is not None})
            sessions[user, part[0].timestamp] = (part[-1].timestamp, *counts, items)
    funnels: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * 5)
    for (day, _, item), steps in firsts.items():
        view, cart, purchase = (steps.get(kind) for kind in ("view", "add_to_cart", "purchase"))
        row = funnels[categories.get(item, ""), day]
        row[0] += view is not None
        if view is not None and cart is not None:
            row[1] += view < cart
            row[3] += 1
            if purchase is not None:
                row[2] += view < cart < purchase
                row[4] += 1
    trends: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for kind in ("item", "category"):
        by_hour: dict[int, list[tuple[float, str, int, int]]] = defaultdict(list)
        for (of_kind, of), counts_of in hours.items():
            if of_kind == kind:
                for hour, actions in counts_of.items():
                    before = counts_of.get(hour - 1, 0)
                    by_hour[hour].append((-(actions - before) / (before + 1) ** 0.5, of, actions, before))
        for hour, rows in by_hour.items():
            for _, of, actions, before in sorted(rows)[:20]:
                trends[kind, of, hour * HOUR_MS] = ((hour + 1) * HOUR_MS, actions, len(people[kind, of, hour]), before)
    return {"sessions": sessions, "funnel-stats": {key: tuple(row) for key, row in funnels.items()}, "trends": trends}


def _collected(stack: Stack, users: set[str], last: int) -> Counts:
    """What the topics hold once the window of the time `last` has come and then nothing for four seconds; the last of
    each key and time counts."""
    from kafka import KafkaConsumer

    found: Counts = {name: {} for name in TOPICS}
    consumer = KafkaConsumer(*TOPICS, bootstrap_servers=stack.bootstrap_servers, auto_offset_reset="earliest")
    deadline, quiet, ended = time.monotonic() + _WAIT_S, time.monotonic(), False
    while time.monotonic() < deadline and (not ended or time.monotonic() - quiet < 4):
        for records in consumer.poll(timeout_ms=500).values():
            quiet = time.monotonic()
            for record in records:
                value = json.loads(record.value)
                if record.topic == "sessions" and value["user_id"] in users:
                    counts = [value[name] for name in ("ended_at", "events", "views", "carts", "purchases", "items")]
                    found["sessions"][value["user_id"], value["started_at"]] = tuple(counts)
                elif record.topic == "funnel-stats":
                    steps = [value[name] for name in ("viewed", *_STEPS)]
                    found["funnel-stats"][value["category"], value["day"]] = tuple(steps)
                elif record.topic == "trends":
                    ended = ended or value["window_end"] > last
                    names = ("window_end", "actions", "people", "before")
                    key = value["kind"], value["id"], value["window_start"]
                    found["trends"][key] = tuple(value[name] for name in names)
    consumer.close()
    return found


def _until_taken(stack: Stack, items: int) -> None:
    """Wait until a checkpoint holds the whole catalogue: categories are to be known before the first event, after a
    restart too."""
    deadline = time.monotonic() + _WAIT_S
    (job,) = stack.running_jobs()
    taken, held = False, 0
    while time.monotonic() < deadline:
        completed = int(stack.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"])
        if not taken:
            vertices = stack.rest(f"/jobs/{job}")["vertices"]
            taken = any(v["name"].startswith("actions") and v["metrics"]["read-records"] >= items for v in vertices)
            held = completed
        elif completed >= held + 2:
            return
        time.sleep(0.5)
    raise StackError(f"The job has not read {items} items within {_WAIT_S:.0f} s.")
