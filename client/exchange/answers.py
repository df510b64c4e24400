"""Requests that wait for their answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Protocol

import trio

from ..errors import FanwireError

Result = Mapping[str, Any]


class Waiter(Protocol):
    """Somebody who asked the broker for something. Called synchronously, from the reader."""

    def answered(self, number: int, result: Result) -> None:
        """OK came."""

    def failed(self, number: int, error: FanwireError) -> None:
        """ERROR came, or the connection went."""


class Requests:
    """From request number to whom the answer is for."""

    def __init__(self) -> None:
        self._numbers = count(1)
        # Who waits, and the publish's number in Outgoing (0: the request is bound to its connection).
        self._open: dict[int, tuple[Waiter, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def number(self) -> int:
        """A fresh request number."""
        return next(self._numbers)

    def expect(self, number: int, waiter: Waiter, publish: int = 0) -> None:
        """Remember who waits for the answer to request ``number``."""
        self._open[number] = (waiter, publish)

    def forget(self, number: int) -> None:
        """Nobody waits for it any more."""
        self._open.pop(number, None)

    def answered(self, number: int, result: Result) -> None:
        """Hand OK to whom it is for; one that nobody waits for is passed over."""
        found = self._open.pop(number, None)
        if found:
            found[0].answered(number, result)

    def failed(self, number: int, error: FanwireError) -> None:
        """Hand ERROR to whom it is for."""
        found = self._open.pop(number, None)
        if found:
            found[0].failed(number, error)

    def gave_up(self, number: int, error: FanwireError) -> bool:
        """The answer has come, and cannot be read; return whether somebody was told who can bear that."""
        found = self._open.get(number)
        if found and not isinstance(found[0], Request):
            return False
        self.failed(number, error)
        return True

    def lost(self, error: FanwireError, written: int | None) -> None:
        """The connection went: what was bound to it has failed, and so have publishes that may have reached the broker.

        Args:
            error: What to tell those who wait.
            written: Publishes up to this number were handed to the kernel; None: no connection will come, all fail.
        """
        gone = [number for number, found in self._open.items() if written is None or found[1] <= written]
        for number in gone:
            self.failed(number, error)


class Request:
    """A `Waiter` that one task waits with."""

    __slots__ = ("_error", "_event", "_result")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._result: Result = {}
        self._error: FanwireError | None = None

    def answered(self, number: int, result: Result) -> None:
        self._result = result
        self._event.set()

    def failed(self, number: int, error: FanwireError) -> None:
        self._error = error
        self._event.set()

    async def result(self) -> Result:
        """Wait for the answer. Raises what it failed with."""
        await self._event.wait()
        if self._error:
            raise self._error.with_traceback(None)
        return self._result
