"""Session neighbours, which our lists are compared with, on sessions with a known answer."""

import pytest

from bench.peers import SessionNeighbours

pytestmark = pytest.mark.unit


def test_what_sessions_that_share_the_newest_items_took_comes_first() -> None:
    peer = SessionNeighbours(nearest=2)
    for user, items in (("a", "xyp"), ("b", "yxq"), ("c", "zr"), ("me", "zxy")):
        for item in items:
            peer.learn(user, item)
    # a and b share x and y, c only z, which is oldest and of the third neighbour.
    assert peer.recommend("me", set("xyz"), 5) in (["p", "q"], ["q", "p"])
    assert peer.recommend("new", (), 5) == []


def test_of_an_item_only_the_last_takers_are_kept() -> None:
    peer = SessionNeighbours(sampled=2)
    for user in "abc":
        peer.learn(user, f"of {user}")
        peer.learn(user, "shared")
    peer.learn("me", "shared")
    assert set(peer.recommend("me", ["shared"], 5)) == {"of c"}
