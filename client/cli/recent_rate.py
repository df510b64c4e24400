"""How many a second, of late: in constant memory, whatever the rate."""

_SLOTS = 5
_SLOT_S = 1.0


class RecentRate:
    """Counts events over the last five seconds or so.

    Time is what the caller says it is, in seconds, and never goes back. Slot n of the ring holds the events of every
    second whose number is n modulo five; a slot whose second has gone is cleared when it is met again.
    """

    __slots__ = ("_began", "_counts", "_second")

    def __init__(self, now: float) -> None:
        self._began = now
        self._second = int(now // _SLOT_S)
        self._counts = [0] * _SLOTS

    def add(self, now: float, count: int = 1) -> None:
        """Count events that happened now."""
        self._turn_to(now)
        self._counts[self._second % _SLOTS] += count

    def per_second(self, now: float) -> float:
        """Events a second: over five seconds, or since the beginning when that is shorter (but a second at least)."""
        self._turn_to(now)
        into_this_slot = now - self._second * _SLOT_S
        covered = min((_SLOTS - 1) * _SLOT_S + into_this_slot, now - self._began)
        return sum(self._counts) / max(1.0, covered)

    def _turn_to(self, now: float) -> None:
        second = int(now // _SLOT_S)
        for gone in range(self._second + 1, min(second, self._second + _SLOTS) + 1):
            self._counts[gone % _SLOTS] = 0
        self._second = max(self._second, second)
