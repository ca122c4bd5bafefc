"""200,000 broken events and catalogue messages through the running job: each is counted, and nothing starts again."""

import random
import time
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.integration.test_recommend_job import Topics, job_stack, operator_metrics
from tests.nasty import broken

__all__ = ["job_stack"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
EVENTS, ITEMS, START = 190_000, 10_000, 1_600_000_000_000


def test_every_broken_message_is_taken_or_set_aside_and_nothing_restarts(job_stack: Stack) -> None:
    from kafka import KafkaProducer

    chance = random.Random(5)
    job = job_stack.submit(Path("jobs/recommend.py"))
    topics = Topics(job_stack.bootstrap_servers)
    topics.send("events", topics.event(0, "u0", "i1"))
    topics.wait(lambda: "u0" in topics.newest())

    producer = KafkaProducer(bootstrap_servers=job_stack.bootstrap_servers, linger_ms=20)
    refused: list[object] = []
    for number in range(EVENTS):
        fields = {"event_id": f"f{number}", "user_id": f"u{number % 500}", "event_type": "view"}
        fields |= {"timestamp": START + number, "item_id": f"i{number % 300}", "value": 3.5, "session_id": "s"}
        producer.send("events", broken(fields, chance)).add_errback(refused.append)
    for number in range(ITEMS):
        item = {"item_id": f"i{number % 300}", "title": "A", "category": ["a", "b"], "price": 1.5, "available": True}
        # A compacted topic takes no message without a key.
        key = chance.choice([f"i{number % 300}".encode(), b"", chance.randbytes(4), b"x" * 300])
        producer.send("items", broken(item, chance), key=key).add_errback(refused.append)
    producer.flush()
    producer.close()
    assert not refused

    def counted() -> float:
        metrics = operator_metrics(job_stack)
        return metrics["events_accepted"] + metrics["events_duplicate"] + metrics.get("code_dead_letters", 0)

    end, newest, before = time.monotonic() + 240, counted(), -1.0
    # The catalogue's messages that are sound are counted nowhere.
    while newest < 1 + EVENTS or newest != before:
        assert time.monotonic() < end, newest
        time.sleep(2)
        before, newest = newest, counted()
    topics.wait(lambda: len(topics.dead) >= operator_metrics(job_stack)["code_dead_letters"])
    metrics = operator_metrics(job_stack)
    from_events = [letter for letter in topics.dead if letter["topic"] == "events"]
    assert metrics["events_accepted"] + metrics["events_duplicate"] + len(from_events) == 1 + EVENTS
    assert metrics["events_accepted"] > 10_000
    assert len({(letter["topic"], letter["partition"], letter["offset"]) for letter in topics.dead}) == len(topics.dead)
    assert not {letter["error"] for letter in topics.dead} & {"scorer_failed", "learner_failed"}
    assert 1000 < len(topics.dead) - len(from_events) <= ITEMS
    restarts = job_stack.rest(f"/jobs/{job}/metrics?get=numRestarts")
    assert restarts == [{"id": "numRestarts", "value": "0"}]

    topics.send("events", topics.event(EVENTS, "u-after", "i2"))
    topics.wait(lambda: "u-after" in topics.newest())
    topics.close()
    job_stack.cancel(job)
