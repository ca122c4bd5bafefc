"""The cache of packed profiles: what it keeps, and what it gives up."""

import pytest

from operators.profile_cache import ProfileCache

pytestmark = pytest.mark.unit


def test_the_last_written_stay_within_the_bound() -> None:
    cache = ProfileCache(10, 1000)
    cache.put("a", 0, b"1234")
    cache.put("b", 0, b"1234")
    cache.put("a", 1, b"12345")
    cache.put("c", 2, b"12345")
    assert [cache.get(user, 3) for user in "abc"] == [b"12345", None, b"12345"]
    cache.put("d", 3, b"x" * 11)
    assert [cache.get(user, 3) for user in "abcd"] == [None] * 4
    cache.put("e", 4, b"0123456789")
    assert cache.get("e", 4) == b"0123456789"


def test_erased_and_outlived_profiles_are_gone() -> None:
    cache = ProfileCache(100, 1000)
    cache.put("a", 0, b"1")
    cache.put("b", 500, b"2")
    cache.remove("c")
    cache.remove("b")
    assert cache.get("b", 500) is None
    assert cache.get("a", 999) == b"1"
    assert cache.get("a", 1000) is None
