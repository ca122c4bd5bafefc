"""The job of behaviour on a real broker and cluster: exact counts through lateness, duplicates and a kill."""

import random

import pytest

from bench.behaviour import DAY_MS, recount, streamed
from deploy.local.stack import Stack
from schema.event import Event

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
START = 1_600_000_000_000


def clicks() -> list[Event]:
    """Forty people over two days, in bursts, who look at things and now and then buy one."""
    chance, made = random.Random(3), []
    for user in range(40):
        time = START + chance.randrange(DAY_MS)
        for n in range(40):
            time += chance.choice([20_000, 60_000, 600_000, 1_800_000, 1_800_001, 7_200_000])
            kind = chance.choices(["view", "add_to_cart", "purchase"], [8, 2, 1])[0]
            made.append(Event(f"e{user}-{n}", f"u{user}", kind, time, f"i{chance.randrange(12)}"))
    return made


def test_counts_are_exact_through_lateness_duplicates_and_a_kill(
    empty_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_FLINK__CHECKPOINT_INTERVAL_MS", "1000")
    events, categories = clicks(), {f"i{n}": f"c{n % 3}" for n in range(11)}
    found = streamed(empty_stack, events, categories)
    expected = recount(events, categories)
    for name, rows in expected.items():
        assert found[name] == rows, name
