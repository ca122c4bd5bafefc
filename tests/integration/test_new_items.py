"""An item that nobody has taken is on the lists of those whom it suits, a moment after its catalogue message."""

import json
import time
from pathlib import Path
from statistics import median

import pytest

from deploy.local.stack import Stack
from tests.integration.test_recommend_job import Topics, job_stack

__all__ = ["job_stack"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
KINDS = {"anna": "running shoe", "bert": "iron pan"}
ROUNDS = 6


def test_a_new_item_reaches_those_whom_it_suits_within_a_second(job_stack: Stack) -> None:
    job = job_stack.submit(Path("jobs/recommend.py"))
    topics, taken = Topics(job_stack.bootstrap_servers), 0

    def describe(item: str, title: str) -> None:
        topics.send("items", json.dumps({"item_id": item, "title": title}).encode(), key=item.encode())

    def act() -> None:
        """Each person takes one of what they like, and gets a list."""
        nonlocal taken
        for number, user in enumerate(KINDS):
            topics.send("events", topics.event(len(KINDS) * taken + number, user, f"{user}'s {taken % 3}"))
        taken += 1
        topics.wait(lambda: all(topics.profile_versions().get(user) == taken for user in KINDS))

    def chosen_by_chance(user: str) -> dict[str, float]:
        newest = topics.newest().get(user)
        found = [item for item in newest["items"] if item["source"] == "new"] if newest else []
        return {item["item_id"]: item["propensity"] for item in found}

    for user, kind in KINDS.items():
        for n in range(3):
            describe(f"{user}'s {n}", f"{kind} number {n}")
    # Enough for lists that are full of what is not new any more.
    crowd = [(f"crowd {n}", f"thing {item}") for n in range(5) for item in range(60)]
    topics.send("events", *(topics.event(200_000 + n, *pair) for n, pair in enumerate(crowd)))
    for _ in range(15):
        act()

    waits = []
    for n in range(ROUNDS):
        user, other = list(KINDS)[n % 2], list(KINDS)[1 - n % 2]
        item = f"new {n}"
        describe(item, f"{KINDS[user]} model-{n}x")
        sent = time.time()
        while item not in chosen_by_chance(user):
            assert time.time() < sent + 30, topics.newest()
            act()
        newest = topics.newest()[user]
        assert newest is not None
        waits.append(newest["generated_at"] / 1000 - sent)
        assert 0 < chosen_by_chance(user)[item] <= 1
        assert item not in chosen_by_chance(other)
    assert median(waits) < 1, waits

    # Once enough people have taken it, it is new no more.
    topics.send("events", *(topics.event(100_000 + n, f"someone {n}", "new 0") for n in range(5)))
    topics.wait(lambda: all(f"someone {n}" in topics.newest() for n in range(5)))
    time.sleep(1)
    for _ in range(10):
        act()
        assert "new 0" not in chosen_by_chance("anna")
    topics.close()
    job_stack.cancel(job)
