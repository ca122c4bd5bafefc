"""A campaign on a real broker and cluster: its day's budget is spent through a spike and a kill, and never more."""

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer

from deploy.local.stack import Stack, still_running
from deploy.local.topics import create_topics, default_topics
from schema.campaign import decode_offer, decode_try
from schema.event import Event, encode_event
from tests.integration.test_local_stack import messages
from tests.integration.test_recommend_job import operator_metrics
from tests.panels import MEASURED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
BUDGET, VISITS, DAY_MS = 150, 6_000, 86_400_000
BEGIN = 1_767_225_600_000
T = TypeVar("T")


def test_a_day_is_spent_through_a_spike_and_a_kill_and_never_more(
    empty_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "1000")
    chance = random.Random(5)
    hours = chance.choices(range(24), [3.0 if 10 <= hour < 13 else 1.0 for hour in range(24)], k=VISITS)
    times = sorted(BEGIN + int((hour + chance.random()) * DAY_MS / 24) for hour in hours)
    events = [Event(f"e{n}", f"u{chance.randrange(3000)}", "view", at, "i") for n, at in enumerate(times)]
    campaign = {
        "campaign_id": "spring",
        "from": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "budget": BUDGET,
        "cost": 1,
        "per_person": 1,
        "offer": {"code": "SPRING"},
    }
    priced = {"code": {"cost": 1, "offer": {"code": "X"}}, "post": {"cost": 2}}
    several = {**campaign, "campaign_id": "several", "cost": None, "offer": {}, "offers": priced}
    create_topics(empty_stack.bootstrap_servers, default_topics())
    producer = KafkaProducer(bootstrap_servers=empty_stack.bootstrap_servers)
    producer.send("campaigns", json.dumps(campaign).encode(), key=b"spring")
    producer.send("campaigns", json.dumps(several).encode(), key=b"several")
    producer.send("campaigns", b'{"campaign_id":"faulty"}', key=b"faulty")
    producer.flush()
    empty_stack.submit(Path("jobs/marketing.py"))
    # The campaign is to be known before the first visit: it is once the faulty one after it has been refused.
    (refused,) = messages(empty_stack, "dead-letters", 1)
    assert (refused["error"], refused["topic"], refused["offset"]) == ("bad_campaign", "campaigns", 2)
    assert all(field in refused["message"] for field in ("budget", "cost", "from", "until"))
    for event in events[: VISITS // 2]:
        producer.send("events", encode_event(event))
    producer.flush()
    time.sleep(4)
    for pid in empty_stack.taskmanager_pids:
        killed = psutil.Process(pid)
        killed.kill()
        assert not still_running([killed], 10)
    empty_stack.ensure()
    for event in events[VISITS // 2 :]:
        producer.send("events", encode_event(event))
    producer.flush()
    producer.close()
    # One of the two spends one or two a time.
    everything = made(empty_stack.bootstrap_servers, "offers", decode_offer, int(0.95 * BUDGET * 1.5))
    # Of the same transactions.
    tries = made(empty_stack.bootstrap_servers, "offer-tries", decode_try, len(everything))
    others = [offer for offer in everything if offer.campaign_id == "several"]
    offers = [offer for offer in everything if offer.campaign_id == "spring"]
    tries = [one for one in tries if one.campaign_id == "spring"]
    assert {offer.name for offer in others} == {"code", "post"}
    assert others[-1].spent == sum(1 if offer.name == "code" else 2 for offer in others)
    assert 0.95 * BUDGET <= others[-1].spent <= BUDGET
    assert MEASURED["marketing"] <= operator_metrics(empty_stack).keys()
    erased = Event("erased", offers[0].user_id, "erase_user", times[-1])
    producer = KafkaProducer(bootstrap_servers=empty_stack.bootstrap_servers)
    producer.send("events", encode_event(erased))
    producer.flush()
    producer.close()
    time.sleep(3)
    savepoint = Path(empty_stack.stop_with_savepoint(empty_stack.running_jobs()[0]).removeprefix("file:"))
    assert savepoint.is_dir()
    held = b"".join(file.read_bytes() for file in savepoint.rglob("*") if file.is_file())
    assert offers[1].user_id.encode() in held
    assert not re.search(rb"\b" + offers[0].user_id.encode() + rb"\b", held)
    assert 0.95 * BUDGET <= len(offers) <= BUDGET
    assert [offer.number for offer in offers] == list(range(1, len(offers) + 1))
    assert len({offer.user_id for offer in offers}) == len(offers)
    assert all(0 < offer.propensity < 1 and offer.offer == {"code": "SPRING"} for offer in offers)
    # Who got none is known too, with the chance that they had.
    assert [(one.user_id, one.at, one.propensity) for one in tries if one.treated] == [
        (offer.user_id, offer.at, offer.propensity) for offer in offers
    ]
    assert all(one.propensity == 0.0 if one.held_out else 0 < one.propensity < 1 for one in tries)
    assert any(one.held_out for one in tries)
    assert 0.4 * BUDGET <= sum(offer.at < BEGIN + DAY_MS // 2 for offer in offers) <= 0.55 * BUDGET


def made(server: str, topic: str, decode: Callable[[bytes], T], least: int) -> list[T]:
    """The messages that a consumer of committed ones sees, once there are so many and none has come for a while."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=server, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    found: list[T] = []
    quiet, end = time.monotonic(), time.monotonic() + 120
    while time.monotonic() < end and (len(found) < least or time.monotonic() - quiet < 4):
        for records in consumer.poll(timeout_ms=500).values():
            quiet = time.monotonic()
            for record in records:
                found.append(decode(record.value))
                assert record.key.decode() == found[-1].user_id
    consumer.close()
    return found
