"""What of a person can be found on the running job: pseudonyms, consent, erasure with receipts, and silent logs."""

import json
import time
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from deploy.local.stack import Stack
from schema.erasure import PARTS, decode_erasure
from schema.pseudonym import pseudonym
from tests.integration.test_recommend_job import Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
KEY = "a key of 32 bytes, for this test"
ANNA, BERT, CARL = "anna-7731@example.org", "bert-7732@example.org", "carl-7733@example.org"
SECONDS = 10


def test_a_person_is_named_nowhere_and_can_be_forgotten(job_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PRIVACY__PSEUDONYM_KEY", KEY)
    # Nothing but the erasure is to fold the learner's log into its base.
    monkeypatch.setenv("HEADRACE_MODELS__COMPACT_AFTER_EVENTS", "100000")
    job = job_stack.submit(Path("jobs/recommend.py"))
    served = httpx.Client(base_url=job_stack.serve())

    def strategy_of(user: str) -> str:
        return str(served.get(f"/users/{user}/recommendations").json()["strategy"])

    topics = Topics(job_stack.bootstrap_servers)
    anna, bert, carl = (pseudonym(KEY.encode(), user) for user in (ANNA, BERT, CARL))
    for number in range(8):
        topics.send("events", topics.event(number, ANNA, f"i{number % 4}"))
        topics.send("events", topics.event(100 + number, BERT, f"i{number % 3}"))
    topics.wait(lambda: topics.profile_versions().get(anna) == topics.profile_versions().get(bert) == 8)

    # Serving reads the topic by itself.
    topics.wait(lambda: strategy_of(ANNA) == "personal")
    assert strategy_of("nobody") == "default"

    refused = json.dumps({"event_id": "x", "user_id": ANNA, "event_type": "stare", "timestamp": 1}).encode()
    topics.send("events", refused, topics.event(50, ANNA, "i1")[:-1], topics.event(51, ANNA * 20, "i1"))
    topics.wait(lambda: len(topics.dead) == 3)
    assert sorted(letter["error"] for letter in topics.dead) == ["id_too_long", "not_json", "unknown_event_type"]
    assert [letter["payload"] for letter in topics.dead] == [None] * 3
    assert ANNA not in json.dumps(topics.dead)

    # Without consent a session has lists, of which nothing is kept: the next event with consent is the first.
    for number in range(3):
        event = json.loads(topics.event(200 + number, CARL, f"carls-{number}"))
        topics.send("events", json.dumps(event | {"consent": False, "session_id": "s"}).encode())
        topics.wait(lambda number=number: (topics.newest().get(carl) or {}).get("event_id") == f"e{200 + number}")
    newest = topics.newest()[carl]
    assert newest is not None
    assert (newest["strategy"], newest["profile_version"]) == ("session", 0)
    topics.send("events", topics.event(300, CARL, "i1"))
    topics.wait(lambda: topics.profile_versions().get(carl) == 1)
    newest = topics.newest()[carl]
    assert newest is not None
    assert newest["strategy"] == "personal"

    receipts = Receipts(job_stack.bootstrap_servers)
    asked = time.monotonic()
    topics.send("events", topics.event(400, ANNA, None, "erase_user"))
    topics.wait(lambda: topics.newest()[anna] is None, SECONDS)
    assert receipts.of("e400", asked + SECONDS) == set(PARTS)
    topics.wait(lambda: strategy_of(ANNA) == "default", SECONDS)

    # Erased and there again within one micro-batch.
    asked = time.monotonic()
    topics.send("events", topics.event(401, CARL, None, "erase_user"), topics.event(402, CARL, "i2"))
    topics.wait(lambda: (topics.newest()[carl] or {}).get("event_id") == "e402", SECONDS)
    assert topics.profile_versions()[carl] == 1
    assert receipts.of("e401", asked + SECONDS) == set(PARTS)

    # One after another: for most the learner folds its log later, and for the last though nothing more comes.
    asked, several = time.monotonic(), range(410, 420)
    for number in several:
        topics.send("events", topics.event(number, f"d{number}", None, "erase_user"))
        time.sleep(0.06)
    for number in several:
        assert receipts.of(f"e{number}", asked + SECONDS) == set(PARTS)

    topics.send("events", topics.event(500, BERT, "i2"))
    topics.wait(lambda: topics.profile_versions().get(bert) == 9)
    savepoint = job_stack.stop_with_savepoint(job).removeprefix("file:")
    state = b"".join(file.read_bytes() for file in Path(savepoint).rglob("*") if file.is_file())
    assert bert.encode() in state
    for name in (anna, ANNA, BERT, CARL, "carls-0"):
        assert name.encode() not in state
    served.close()
    topics.close()
    receipts.close()
    logs = [file for file in job_stack.logs.iterdir() if file.is_file()]
    assert len(logs) >= 5
    for file in logs:
        text = file.read_text(errors="replace")
        for word in (ANNA, BERT, CARL, anna, bert, carl, "carls-", "stare", KEY):
            assert word not in text, f"{word} stands in {file}"


class Receipts:
    """Reads the topic `erasures`."""

    def __init__(self, bootstrap_servers: str) -> None:
        from kafka import KafkaConsumer

        self._consumer = KafkaConsumer(
            "erasures", bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", group_id=None
        )
        self._parts: dict[str, set[str]] = defaultdict(set)

    def of(self, event_id: str, until: float) -> set[str]:
        """The parts that have confirmed, when all have or the time is over."""
        while len(self._parts[event_id]) < len(PARTS) and time.monotonic() < until:
            for records in self._consumer.poll(timeout_ms=200).values():
                for erasure in (decode_erasure(record.value) for record in records):
                    self._parts[erasure.event_id].add(erasure.part)
        return self._parts[event_id]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
