"""What an operator asks of Flink: states by key, timers, metrics, and the time."""

from collections.abc import Callable, ItemsView
from typing import Any


class _Value:
    def __init__(self, held: dict[Any, Any], key: Callable[[], Any]) -> None:
        self._held, self._key = held, key

    def value(self) -> Any:
        return self._held.get(self._key())

    def update(self, value: Any) -> None:
        self._held[self._key()] = value

    def clear(self) -> None:
        self._held.pop(self._key(), None)


class _Map(_Value):
    def _table(self) -> dict[Any, Any]:
        return self._held.setdefault(self._key(), {})

    def get(self, name: Any) -> Any:
        return self._table().get(name)

    def put(self, name: Any, value: Any) -> None:
        self._table()[name] = value

    def contains(self, name: Any) -> bool:
        return name in self._table()

    def remove(self, name: Any) -> None:
        self._table().pop(name, None)

    def items(self) -> ItemsView[Any, Any]:
        return self._table().items()


class Keyed:
    """Runtime context, context and timer service in one. `states` holds, by name and key, what the operator keeps, and
    `timers` the keys and times of what it waits for."""

    def __init__(self) -> None:
        self.key: Any = ""
        self.now, self.watermark = 0, -(2**63)
        self.states: dict[str, dict[Any, Any]] = {}
        self.timers: set[tuple[Any, int]] = set()

    def get_state(self, descriptor: Any) -> _Value:
        return _Value(self.states.setdefault(descriptor.name, {}), lambda: self.key)

    def get_map_state(self, descriptor: Any) -> _Map:
        return _Map(self.states.setdefault(descriptor.name, {}), lambda: self.key)

    def get_metrics_group(self) -> "Keyed":
        return self

    def add_group(self, *_: str) -> "Keyed":
        return self

    def counter(self, _: str) -> "Keyed":
        return self

    def inc(self, _: int = 1) -> None:
        pass

    def gauge(self, *_: object) -> None:
        pass

    def distribution(self, _: str) -> "Keyed":
        return self

    def update(self, _: int) -> None:
        pass

    def get_current_key(self) -> Any:
        return self.key

    def timer_service(self) -> "Keyed":
        return self

    def current_processing_time(self) -> int:
        return self.now

    def current_watermark(self) -> int:
        return self.watermark

    def register_processing_time_timer(self, at: int) -> None:
        self.timers.add((self.key, at))

    def register_event_time_timer(self, at: int) -> None:
        self.timers.add((self.key, at))

    def delete_event_time_timer(self, at: int) -> None:
        self.timers.discard((self.key, at))

    def fired(self, operator: Any, until: int) -> list[Any]:
        """What comes of the timers up to then, in the order of their times."""
        told = []
        while due := sorted((at, key) for key, at in self.timers if at <= until):
            at, self.key = due[0]
            self.timers.remove((self.key, at))
            told += list(operator.on_timer(at, self))
        return told
