"""200,000 broken events and catalogue messages through the running job: each is counted, and nothing starts again."""

import random
import time
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.integration.test_local_stack import messages
from tests.integration.test_recommend_job import Topics, operator_metrics
from tests.nasty import broken

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
EVENTS, ODD, ITEMS, START = 190_000, 3, 10_000, 1_600_000_000_000


def test_every_broken_message_is_taken_or_set_aside_and_nothing_restarts(job_stack: Stack) -> None:
    from kafka import KafkaProducer

    chance = random.Random(5)
    job = job_stack.submit(Path("jobs/recommend.py"))
    topics = Topics(job_stack.bootstrap_servers)
    topics.send("events", topics.event(0, "u0", "i1"))
    topics.wait(lambda: "u0" in topics.newest())

    producer = KafkaProducer(bootstrap_servers=job_stack.bootstrap_servers, linger_ms=20)
    refused: list[object] = []
    # What is nearly as large as the broker takes, and what Flink's JSON takes for none though ours does.
    unlike = '{{"event_id":"f","user_id":"u1","event_type":"view","timestamp":{},"item_id":"i1","properties":{{{}}}}}'
    odd = (f'"n":1{"0" * 1500}', f'"{"n" * 51_000}":1')
    for raw in (b"\xff" * 900_000, *(unlike.format(START, properties).encode() for properties in odd)):
        producer.send("events", raw).add_errback(refused.append)
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

    def counted(*names: str) -> float:
        """Of the profile operator, or the dead letters of the learner."""
        return sum(operator_metrics(job_stack, operator="profile").get(name, 0) for name in names)

    taken = ("events_accepted", "events_duplicate", "code_dead_letters")
    end = time.monotonic() + 300
    while (newest := counted(*taken)) < 1 + EVENTS + ODD:
        assert time.monotonic() < end, newest
        time.sleep(2)
    # The catalogue's messages that are sound are counted nowhere.
    before = -1.0
    while (refused_items := operator_metrics(job_stack, operator="learner")["code_dead_letters"]) != before:
        before = refused_items
        time.sleep(3)
    assert counted(*taken) == 1 + EVENTS + ODD
    assert counted("events_accepted") > 10_000
    assert 1000 < refused_items <= ITEMS
    assert offset_of(job_stack, "dead-letters") == counted("code_dead_letters") + refused_items
    letters = messages(job_stack, "dead-letters", 5_000)
    assert len({(letter["topic"], letter["partition"], letter["offset"]) for letter in letters}) == len(letters)
    assert not {letter["error"] for letter in letters} & {"scorer_failed", "learner_failed"}
    assert [letter["error"] for letter in letters if letter.get("truncated")] == ["too_large"]
    assert [letter["error"] for letter in letters].count("unkeyed") == ODD - 1
    assert not job_stack.rest(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]

    lists = offset_of(job_stack, "recommendations")
    topics.send("events", topics.event(EVENTS, "u-after", "i2"))
    end = time.monotonic() + 180
    while offset_of(job_stack, "recommendations") == lists:
        assert time.monotonic() < end
        time.sleep(0.2)
    topics.close()
    job_stack.cancel(job)


def offset_of(stack: Stack, topic: str) -> int:
    """How many messages the topic has, in its one partition."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap_servers, group_id=None)
    partition = TopicPartition(topic, 0)
    (end,) = consumer.end_offsets([partition]).values()
    consumer.close()
    return int(end)
