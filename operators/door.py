"""Before the key: puts the pseudonym in the user id's place, so that no keyed state is named by the id."""

from pyflink.common import Row
from pyflink.datastream import MapFunction

from schema.pseudonym import pseudonym


class PseudonymFunction(MapFunction):
    """In and out: Row(user_id, event). The event's payload stays as it came."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def map(self, value: Row) -> Row:
        """The same event under its user's pseudonym."""
        user_id, event = value
        return Row(pseudonym(self._key, user_id), event)
