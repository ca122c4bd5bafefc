"""How long a network takes to read people's sequences, so that it can be left out where lists would be late."""

_MANY, _SMOOTHING, _FORGOTTEN = 32, 0.1, 0.98


class ReadingTime:
    """Milliseconds, smoothed: of a batch of few people as a whole, as what a call costs whatever it reads decides
    there, and of one of many for each person."""

    def __init__(self) -> None:
        self._few, self._many = 0.0, 0.0

    def observe(self, people: int, took_ms: float) -> None:
        """A batch of so many people took so long."""
        if people < _MANY:
            self._few += _SMOOTHING * (took_ms - self._few)
        else:
            self._many += _SMOOTHING * (took_ms / people - self._many)

    def of(self, people: int) -> float:
        """What a batch of so many is thought to take; 0 where none of the kind was read yet."""
        return self._few if people < _MANY else self._many * people

    def doubt(self, people: int) -> None:
        """Think it a little faster, as nothing was read: in the end it is tried again."""
        if people < _MANY:
            self._few *= _FORGOTTEN
        else:
            self._many *= _FORGOTTEN
