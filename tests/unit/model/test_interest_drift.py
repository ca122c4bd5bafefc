"""Drift of interests: another person's actions show, the same person's do not, and the state is bounded."""

import math
import random

import pytest

from model.interest_drift import (
    DriftOptions,
    Interests,
    Shares,
    drifted,
    follow,
    pack_interests,
    unpack_interests,
)

pytestmark = pytest.mark.unit
OPTIONS = DriftOptions(threshold=1.5)
UNKNOWN = -math.log(1 - OPTIONS.loyalty)


def shop() -> Shares:
    shares, chance = Shares(), random.Random(1)
    for _ in range(20_000):
        shares.add(f"c{chance.randrange(100)}")
    return shares


def scores(categories: list[str], shares: Shares, interests: Interests | None = None) -> list[float]:
    state = Interests() if interests is None else interests
    first = len(state.known) + len(state.items)
    return [follow(state, name, f"i{first + n}", n, shares, OPTIONS) for n, name in enumerate(categories)]


def test_another_person_s_taste_shows_within_thirty_actions_and_one_s_own_does_not() -> None:
    chance, shares, found, alarms = random.Random(2), shop(), 0, 0
    for _ in range(50):
        both = chance.sample(range(100), 16)
        own, other = both[:8], both[8:]
        before = [f"c{chance.choice(own)}" for _ in range(120)]
        going_on = scores([*before, *(f"c{chance.choice(own)}" for _ in range(30))], shares)
        spliced = scores([*before, *(f"c{chance.choice(other)}" for _ in range(30))], shares)
        assert max(spliced[:120]) < OPTIONS.threshold
        alarms += max(going_on) > OPTIONS.threshold
        found += max(spliced[120:]) > OPTIONS.threshold
    assert (alarms, found) == (0, 50)


def test_nothing_is_said_while_too_little_is_known_and_an_item_from_before_speaks_for_the_same_person() -> None:
    shares = shop()
    assert scores(["c1"] * 59, shares)[-1] == -math.inf
    assert scores(["c1"] * 60, shares)[-1] > -math.inf
    known, new = Interests(), Interests()
    for n in range(90):
        follow(known, f"c{n % 3}", f"i{n % 20}", n, shares, OPTIONS)
        follow(new, f"c{n % 3}", f"i{n}", n, shares, OPTIONS)
    last = [follow(state, "c9", "i1", 90, shares, OPTIONS) for state in (known, new)]
    assert last[0] < last[1]


def test_after_a_drift_what_is_new_is_what_was_before() -> None:
    shares, interests = shop(), Interests()
    scores(["c1"] * 100, shares, interests)
    seen = scores([f"c{2 + n % 8}" for n in range(30)], shares, interests)
    # Each category that was never taken before says as much.
    assert seen[-1] == pytest.approx(8 * UNKNOWN)
    assert drifted(interests, max(seen), OPTIONS)
    assert set(interests.before) == {f"c{n}" for n in range(2, 10)}
    assert max(scores([f"c{2 + n % 8}" for n in range(60)], shares, interests)) < OPTIONS.threshold
    assert not drifted(interests, OPTIONS.threshold, OPTIONS)


def test_state_is_bounded_and_comes_back() -> None:
    shares, interests = shop(), Interests()
    scores([f"c{n % 500}" for n in range(2000)], shares, interests)
    assert len(interests.before) == OPTIONS.categories
    assert len(interests.known) == OPTIONS.items
    assert len(interests.categories) == OPTIONS.window
    assert unpack_interests(pack_interests(interests)) == interests
    with pytest.raises(ValueError, match="version 9"):
        unpack_interests(b"\x09" + pack_interests(interests)[1:])


def test_shares_of_the_shop_forget_what_is_long_ago() -> None:
    shares = Shares(memory=1000)
    for n in range(5000):
        shares.add("old" if n < 1000 else "new")
    assert shares.of("old") < 0.05 < 0.9 < shares.of("new")
    assert 0 < shares.of("nobody took it") < 0.001
