"""Drift of interests: another person's actions show, the same person's do not, and the state is bounded."""

import math
import random
from collections.abc import Container

import msgspec
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
OPTIONS = DriftOptions()
UNKNOWN = -math.log(1 - OPTIONS.loyalty)


def shop() -> Shares:
    shares, chance = Shares(), random.Random(1)
    for _ in range(20_000):
        shares.add(f"c{chance.randrange(100)}")
    return shares


def scores(
    categories: list[str], shares: Shares, interests: Interests | None = None, pauses: Container[int] = ()
) -> list[float]:
    """Of new items, an action each second, with an hour's pause before those at `pauses`."""
    state, now, found = Interests() if interests is None else interests, 0, []
    if state.times:
        now = state.times[-1]
    first = len(state.known) + len(state.items)
    for n, name in enumerate(categories):
        now += 3_600_000 if n in pauses else 1000
        found.append(follow(state, name, f"i{first + n}", now, shares, OPTIONS))
    return found


def test_another_person_s_taste_shows_after_thirty_actions_and_one_s_own_does_not() -> None:
    chance, shares = random.Random(2), shop()
    for _ in range(50):
        both = chance.sample(range(100), 16)
        own, other = both[:8], both[8:]
        before = [f"c{chance.choice(own)}" for _ in range(120)]
        sessions = range(0, 150, 15)
        going_on = scores([*before, *(f"c{chance.choice(own)}" for _ in range(30))], shares, pauses=sessions)
        spliced = scores([*before, *(f"c{chance.choice(other)}" for _ in range(30))], shares, pauses=sessions)
        assert max(going_on) < OPTIONS.threshold
        assert max(spliced[:-1]) < OPTIONS.threshold < spliced[-1]


def test_it_is_looked_at_where_thirty_actions_follow_a_pause_and_enough_was_before() -> None:
    shares = shop()
    pauses = {0, 40, 99, 105, 110}
    seen = scores(["c1"] * 145, shares, pauses=pauses)
    assert [n for n, score in enumerate(seen) if score > -math.inf] == [105 + 29, 110 + 29]


def test_an_item_from_before_speaks_for_the_same_person() -> None:
    shares = shop()
    known, new = Interests(), Interests()
    for n in range(129):
        follow(known, f"c{n % 3}", f"i{n % 100}", n + 10**9 * (n > 99), shares, OPTIONS)
        follow(new, f"c{n % 3}", f"i{n}", n + 10**9 * (n > 99), shares, OPTIONS)
    last = [follow(state, "c9", "i99", 10**9 + 129, shares, OPTIONS) for state in (known, new)]
    assert -math.inf < last[0] < last[1]


def test_what_was_taken_lately_counts_more_than_what_was_taken_long_ago() -> None:
    shares = shop()
    lately, long_ago = (
        scores([*first, *["c1"] * 30], shares, pauses={120})[-1]
        for first in (["c2"] * 60 + ["c1", "c2"] * 30, ["c1", "c2"] * 30 + ["c2"] * 60)
    )
    assert -math.inf < lately < long_ago


def test_after_a_drift_what_is_new_is_what_was_before() -> None:
    shares, interests = shop(), Interests()
    scores(["c1"] * 100, shares, interests)
    score = scores([f"c{2 + n % 8}" for n in range(30)], shares, interests, pauses={0})[-1]
    # Each category that was never taken before says as much.
    assert score == pytest.approx(8 * UNKNOWN)
    assert drifted(interests, score, OPTIONS)
    assert set(interests.before) == {f"c{n}" for n in range(2, 10)}
    again = scores([f"c{2 + n % 8}" for n in range(150)], shares, interests, pauses=range(0, 150, 10))
    assert -math.inf < max(again) < OPTIONS.threshold
    assert not drifted(interests, OPTIONS.threshold, OPTIONS)


def test_state_is_bounded_and_comes_back() -> None:
    shares, interests = shop(), Interests()
    scores([f"c{n % 500}" for n in range(2000)], shares, interests)
    assert len(interests.before) == len(interests.known) == OPTIONS.remembered
    assert len(interests.categories) == OPTIONS.window
    assert unpack_interests(pack_interests(interests)) == interests
    with pytest.raises(ValueError, match="version 9"):
        unpack_interests(b"\x09" + pack_interests(interests)[1:])


def test_what_version_1_packed_is_read() -> None:
    packed = b"\x01" + msgspec.msgpack.encode([["c1", "c2"], [11, 12], [2000, 1000], {"c7": 1}, [13]])
    assert unpack_interests(packed) == Interests(["c2", "c1"], [12, 11], [1000, 2000], ["c7"], [13])
    rare = {f"rare{n}": 1 for n in range(100)}
    packed = b"\x01" + msgspec.msgpack.encode([[], [], [], {"c1": 3000, "c2": 1000}, []])
    before = unpack_interests(packed).before
    assert (before.count("c1"), before.count("c2")) == (192, 64)
    packed = b"\x01" + msgspec.msgpack.encode([[], [], [], {"c1": 100, **rare}, []])
    before = unpack_interests(packed).before
    assert (before.count("c1"), len(before)) == (100, 200)
    # Of all there are some among the oldest, and among the newest.
    assert 30 <= before[:100].count("c1") <= 70


def test_actions_that_come_out_of_order_are_as_those_in_order() -> None:
    shares, chance = shop(), random.Random(4)
    times = [n * 60_000 for n in range(110)] + [10**9 + n * 60_000 for n in range(30)]
    actions = [(f"c{n % 7 + 20 * (n >= 110)}", f"i{n}", time) for n, time in enumerate(times)]
    late = sorted(actions, key=lambda action: action[2] + chance.randrange(600_000))
    assert late != actions
    inorder, shuffled = Interests(), Interests()
    for action in actions:
        score = follow(inorder, *action, shares, OPTIONS)
    for action in late:
        again = follow(shuffled, *action, shares, OPTIONS)
    assert score > OPTIONS.threshold
    assert (shuffled.times, shuffled.before_ms) == (inorder.times, inorder.before_ms)
    assert again == pytest.approx(score)
    # One that is older than all of the window is one of those before, and nothing is looked at twice.
    assert follow(inorder, "c1", "late", 60_000, shares, OPTIONS) == -math.inf
    assert (inorder.times, inorder.before_ms) == (shuffled.times, shuffled.before_ms)


def test_nothing_is_said_before_the_shop_is_known() -> None:
    before, after = ["c1"] * 100, [f"c{2 + n % 8}" for n in range(30)]
    little = Shares()
    for _ in range(OPTIONS.shop - 1):
        little.add("c1")
    assert max(scores([*before, *after], little, pauses={100})) == -math.inf
    little.add("c2")
    assert scores([*before, *after], little, pauses={100})[-1] > OPTIONS.threshold


def test_shares_of_the_shop_forget_what_is_long_ago() -> None:
    shares = Shares(memory=1000)
    for n in range(5000):
        shares.add("old" if n < 1000 else "new")
    assert shares.of("old") < 0.05 < 0.9 < shares.of("new")
    assert 0 < shares.of("nobody took it") < 0.001
