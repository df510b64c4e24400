"""How the connection is, for anybody who wants to follow it."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import trio

from .home import Home

# What a listener may lie behind; it misses the oldest changes then, never the newest.
KEPT = 64


class State(StrEnum):
    """Compares equal to its name: ``state == "connected"``."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """Not connected; the next attempt comes after a pause."""
    CLOSED = "closed"
    """For good."""


class States:
    """The history of states, any number of listeners, none of whom has to be registered."""

    def __init__(self, home: Home) -> None:
        """``home``: where listeners may be called."""
        self.home = home
        self.current = State.CONNECTING
        self._changes: deque[State] = deque([self.current], maxlen=KEPT)
        self._count = 1
        self._changed = trio.lowlevel.ParkingLot()

    def set(self, state: State) -> None:
        """Change to ``state``; nothing happens if that is the current one."""
        if state is self.current:
            return
        self.current = state
        self._changes.append(state)
        self._count += 1
        self._changed.unpark_all()

    def listen(self) -> StateIterator:
        """Begin with the current state."""
        return StateIterator(self)

    async def wait_until(self, *states: State) -> State:
        """Return the first of ``states`` that is or becomes the current one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.current not in states:
            await self._changed.park()
        return self.current

    async def after(self, seen: int) -> tuple[State, int]:
        """The first change kept that came after the first ``seen``, and how many have been seen then."""
        while seen >= self._count:
            if self.current is State.CLOSED:
                raise StopAsyncIteration
            await self._changed.park()
        index = max(seen, self._count - len(self._changes))
        return self._changes[index - self._count], index + 1

    @property
    def count(self) -> int:
        """Changes so far."""
        return self._count


class StateIterator:
    """The current state, then every change; ends after "closed"."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._seen = states.count - 1

    def __aiter__(self) -> StateIterator:
        return self

    async def __anext__(self) -> State:
        self._states.home.check()
        await trio.lowlevel.checkpoint()
        state, self._seen = await self._states.after(self._seen)
        return state
