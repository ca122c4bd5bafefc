"""Item ids and the rows that stand for them in every model."""

from collections.abc import Iterable
from itertools import repeat


class ItemIndex:
    """Gives each item id the next free row on first sight; a row is never reused or moved."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids: list[str] = []
        self._rows: dict[str, int] = {}
        self.extend(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, item_id: str) -> int:
        """The row of the item, new or known."""
        row = self._rows.get(item_id)
        if row is None:
            row = self._rows[item_id] = len(self.ids)
            self.ids.append(item_id)
        return row

    def extend(self, ids: Iterable[str]) -> None:
        """Add the items in their order."""
        for item_id in ids:
            self.add(item_id)

    def row(self, item_id: str) -> int:
        """The row of the item, -1 if it is not known."""
        return self._rows.get(item_id, -1)

    def rows(self, ids: Iterable[str]) -> list[int]:
        """The rows of the items, -1 for one that is not known."""
        return list(map(self._rows.get, ids, repeat(-1)))
