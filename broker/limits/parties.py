"""What is remembered of each address, or user, while it is connected and as long afterwards as that matters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, TypeVar

# Parties remembered that have no connection: beyond it those go first that were heard of longest ago. A bucket of
# theirs is full again then. About 500 bytes each, so 32 MiB.
MOST_IDLE = 65_536

# Idle ones looked at for each that comes, whether there is still anything to remember.
_LOOKED_AT = 2


class Party:
    """Somebody who has connections."""

    __slots__ = ("connections", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.connections = 0

    def settled(self, now: float) -> bool:
        """Whether there is nothing to remember once it has no connections."""
        raise NotImplementedError


P = TypeVar("P", bound=Party)


class Ledger(Generic[P]):
    """Parties by their keys."""

    def __init__(self, make: Callable[[str], P]) -> None:
        self._make = make
        self._connected: dict[str, P] = {}
        self._idle: OrderedDict[str, P] = OrderedDict()

    def __len__(self) -> int:
        return len(self._connected) + len(self._idle)

    def everybody(self) -> Iterator[P]:
        """All that are remembered."""
        return chain(self._connected.values(), self._idle.values())

    def find(self, key: str, now: float) -> P:
        """The one of that key, made if there is none."""
        party = self._connected.get(key)
        if party is None:
            party = self._idle.pop(key, None) or self._make(key)
            self._keep(party, now)
        return party

    def join(self, party: P) -> None:
        """One more connection of its."""
        if not party.connections:
            self._idle.pop(party.key, None)
            self._connected[party.key] = party
        party.connections += 1

    def leave(self, party: P, now: float) -> None:
        """One connection less."""
        party.connections -= 1
        if not party.connections:
            del self._connected[party.key]
            if not party.settled(now):
                self._keep(party, now)

    def _keep(self, party: P, now: float) -> None:
        idle = self._idle
        idle[party.key] = party
        for _ in range(_LOOKED_AT):
            first = next(iter(idle.values()))
            if first is party or not (first.settled(now) or len(idle) > MOST_IDLE):
                break
            del idle[first.key]
