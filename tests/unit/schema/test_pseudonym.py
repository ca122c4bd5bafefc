"""Pseudonyms: a known answer, and that another key gives another name."""

import pytest

from schema.pseudonym import pseudonym

pytestmark = pytest.mark.unit


def test_pseudonyms_are_keyed_blake2b() -> None:
    # b2sum -l 128 cannot be keyed; the reference is hashlib's own known answer, by another way.
    import hashlib

    keyed = hashlib.blake2b(key=b"0123456789abcdef", digest_size=16)
    keyed.update(b"anna")
    assert pseudonym(b"0123456789abcdef", "anna") == keyed.hexdigest()
    assert pseudonym(b"0123456789abcdeF", "anna") != keyed.hexdigest()
    assert len(pseudonym(b"0123456789abcdef", "")) == 32
