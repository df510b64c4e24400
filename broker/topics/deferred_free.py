"""Large dicts that nobody needs any more, freed a little at a time.

To free a hundred thousand objects at once takes tens of milliseconds, in which nobody gets anything.
"""

from __future__ import annotations

from typing import Any

# Entries freed at a time: more than are added to a new dict meanwhile, so that what is retired stays bounded.
PORTION = 4


class Retired:
    """What waits to be freed."""

    def __init__(self) -> None:
        self._dicts: list[dict[Any, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._dicts)

    def __len__(self) -> int:
        return sum(map(len, self._dicts))

    def add(self, retired: dict[Any, Any]) -> None:
        """Take over a dict, which its owner forgets."""
        if retired:
            self._dicts.append(retired)

    def free_some(self) -> None:
        """Free a few entries, if there are any. To be called with each entry that is made."""
        for _ in range(PORTION):
            if not self._dicts:
                return
            self._dicts[-1].popitem()
            if not self._dicts[-1]:
                self._dicts.pop()
