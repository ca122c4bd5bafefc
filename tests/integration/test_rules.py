"""The shop's rules and contexts on the running job: in force a moment after they come, kept by a savepoint."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

from deploy.local.stack import Stack
from tests.integration.test_recommend_job import Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Told:
    """The review queue, or what no list may hold, as a consumer of the compacted topic sees it: of each item the rules
    that are named."""

    def __init__(self, server: str, topic: str) -> None:
        self._consumer = KafkaConsumer(topic, bootstrap_servers=server, auto_offset_reset="earliest")
        self.waiting: dict[str, list[str]] = {}

    def until(self, expected: dict[str, list[str]]) -> None:
        end = time.time() + 180
        while self.waiting != expected:
            assert time.time() < end, self.waiting
            for batch in self._consumer.poll(500).values():
                for record in batch:
                    self.waiting.pop(record.key.decode(), None)
                    if record.value is not None:
                        self.waiting[record.key.decode()] = json.loads(record.value).get("rules", [])

    def close(self) -> None:
        self._consumer.close()


def test_a_rule_is_in_force_within_two_seconds_and_stays_over_a_savepoint(
    job_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the rules ask of an event is a context too: it goes with the deltas and over the savepoint.
    monkeypatch.setenv("HEADRACE_MODELS__CONTEXT", '["page"]')
    # Whose learner keeps its state as older versions did.
    job = job_stack.submit(Path("tests/integration/older_job.py"))
    topics, taken = Topics(job_stack.bootstrap_servers), 0
    queue, forbidden = (Told(job_stack.bootstrap_servers, topic) for topic in ("review-queue", "forbidden-items"))
    for n in range(60):
        item = {"item_id": f"i{n}", "title": f"Item {n}", "brand": f"b{n % 3}", "price": n}
        topics.send("items", json.dumps(item).encode(), key=f"i{n}".encode())
    crowd = [(f"crowd {n}", f"i{(7 * n + m) % 60}") for n in range(30) for m in range(10)]
    topics.send("events", *(topics.event(1000 + n, *pair) for n, pair in enumerate(crowd)))

    def act(properties: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Somebody takes something, and gets a list."""
        nonlocal taken
        event = json.loads(topics.event(taken, "anna", f"i{taken % 20}"))
        topics.send("events", json.dumps(event | ({"properties": properties} if properties else {})).encode())
        taken += 1
        topics.wait(lambda: topics.profile_versions().get("anna") == taken)
        return (topics.newest()["anna"] or {})["items"]

    def put(topic: str, key: str, message: dict[str, Any] | None) -> float:
        sent = time.time()
        topics.send(topic, None if message is None else json.dumps(message).encode(), key=key.encode())
        return sent

    def until(holds: Any) -> float:
        """Somebody goes on taking things until it holds; when that list was made."""
        end = time.time() + 180
        while not holds(listed := act()):
            assert time.time() < end, listed
        newest = topics.newest()["anna"]
        assert newest is not None
        return newest["generated_at"] / 1000

    until(lambda listed: len(listed) == 20)

    def landed(number: int) -> dict[str, Any] | None:
        """Somebody new takes something on the landing page; the list for people who come there."""
        user = f"landed {number}"
        event = json.loads(topics.event(5000 + number, user, "i7")) | {"properties": {"page": "landing"}}
        topics.send("events", json.dumps(event).encode())
        topics.wait(lambda: user in topics.newest())
        return topics.newest().get("__default__?page=landing")

    of_landing = next(found for found in map(landed, range(200)) if found)
    assert (of_landing["strategy"], len(of_landing["items"])) == ("popular", 20)

    sent = put("rules", "no b0", {"rule_id": "no b0", "action": "filter", "items": "item.brand == 'b0'"})
    waits = [until(lambda listed: not any(int(i["item_id"][1:]) % 3 == 0 for i in listed)) - sent]
    # Who does nothing keeps the list that they have: of these it is told.
    of_b0: dict[str, list[str]] = {f"i{n}": [] for n in range(0, 60, 3)}
    forbidden.until(of_b0)
    sent = put("rules", "first", {"rule_id": "first", "action": "pin", "position": 2, "item_ids": ["i58"]})
    waits.append(until(lambda listed: listed[1]["item_id"] == "i58" and listed[1]["rules"] == ["first"]) - sent)
    assert max(waits) < 2, waits

    # What the job of behaviour says of people, and what their newest event says.
    asks = "person.behaviour == 'loyal' && has(event.properties.page) && event.properties.page == 'cart'"
    put("rules", "cart", {"rule_id": "cart", "action": "pin", "position": 4, "item_ids": ["i55"], "when": asks})
    put("segments", "anna", {"user_id": "anna", "segment": "loyal", "price_sensitive": False, "since": 0})
    end = time.time() + 180
    while (listed := act({"page": "cart"}))[3]["item_id"] != "i55":
        assert time.time() < end, listed
    assert act()[3].get("rules") != ["cart"]

    # One that is not valid is refused with all its faults, and the one before it stays.
    put("rules", "first", {"rule_id": "first", "action": "pin", "item_ids": ["i1"], "items": "item.prize > 1", "x": 1})
    topics.wait(lambda: bool(topics.dead))
    dead = topics.dead[0]
    assert (dead["error"], dead["topic"]) == ("bad_rule", "rules")
    assert all(said in dead["message"] for said in ("prize", "x = 1", "pin needs position"))
    assert act()[1]["item_id"] == "i58"

    put("rules", "look", {"rule_id": "look", "action": "review", "items": "item.price > 56.0"})
    queue.until({"i57": ["look"], "i58": ["look"], "i59": ["look"]})
    until(lambda listed: listed[1]["item_id"] != "i58")
    put("review-decisions", "i58", {"item_id": "i58", "decision": "allow"})
    queue.until({"i57": ["look"], "i59": ["look"]})
    forbidden.until(of_b0 | {"i59": []})
    until(lambda listed: listed[1]["item_id"] == "i58")

    savepoint = job_stack.stop_with_savepoint(job)
    job = job_stack.submit(Path("jobs/recommend.py"), savepoint=savepoint)
    listed = act()
    assert listed[1]["item_id"] == "i58"
    assert act({"page": "cart"})[3]["item_id"] == "i55"
    assert not any(int(entry["item_id"][1:]) % 3 == 0 for entry in listed)
    put("review-decisions", "i58", {"item_id": "i58", "decision": "forbid"})
    until(lambda listed: "i58" not in [entry["item_id"] for entry in listed])
    put("rules", "no b0", None)
    until(lambda listed: any(int(entry["item_id"][1:]) % 3 == 0 for entry in listed))
    forbidden.until({"i57": [], "i58": [], "i59": []})
    topics.close()
    queue.close()
    forbidden.close()
    job_stack.cancel(job)
