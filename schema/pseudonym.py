"""User ids as keyed hashes: who has the key finds a user's list and can erase them, who has not cannot name them."""

from hashlib import blake2b

MIN_KEY_BYTES = 16


def pseudonym(key: bytes, user_id: str) -> str:
    """32 hexadecimal digits of BLAKE2b (RFC 7693) keyed with at most 64 bytes."""
    return blake2b(user_id.encode(), key=key, digest_size=16).hexdigest()
