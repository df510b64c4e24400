"""How much may wait for one subscription, what becomes of the rest, and how old what waits is."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, get_args

import trio
from attrs import Attribute, field, frozen

from ..checks import check_word
from ..config import OnFull, count, flag
from .buffer import Bounds, Buffer, Conflating, Line, drop_newest, drop_oldest, refuse

# The broker hears that a buffer fills up, and when there is room again; the distance keeps it from hearing so all the
# time.
BACKLOG_ABOVE = 0.75
BACKLOG_BELOW = 0.50

_SHEDDERS = {"disconnect": refuse, "drop_oldest": drop_oldest, "drop_newest": drop_newest}


def _on_full(_instance: object, attribute: Attribute[Any], value: object) -> None:
    check_word(attribute.name, value, get_args(OnFull))


@frozen
class BufferOptions:
    """A subscription's buffer in this process. `Client.subscribe` explains the fields."""

    # A burst of 200,000 messages fits, whatever the handler waits for meanwhile. 262,144 messages of 128 bytes are some
    # 120 MiB of Python objects, and a second at full speed.
    BUFFER: ClassVar[int] = 262_144
    # As much as so many messages of 128 bytes weigh: 512 bytes each with their Python objects (see `weight`).
    BUFFER_BYTES: ClassVar[int] = 128 * 1024 * 1024

    buffer: int = field(validator=count)
    buffer_bytes: int = field(validator=count)
    on_full: OnFull = field(validator=_on_full)
    report_loss: bool = field(validator=flag)

    # From so many waiting messages on the reader lets a handler with much to do go on before it reads more; from twice
    # as many on it waits for one that takes a replay. So only a handler that waits for something else is far behind.
    LONG: ClassVar[int] = 16_384

    @property
    def long(self) -> int:
        """How many messages are many, for this buffer."""
        return min(self.buffer // 4, self.LONG)

    def new_buffer(self) -> Buffer:
        """An empty one."""
        bounds = Bounds(self.buffer, self.buffer_bytes)
        return Conflating(bounds) if self.on_full == "conflate" else Line(bounds, _SHEDDERS[self.on_full])


class Ages:
    """When what waits came in: one mark a run, not one a message."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()

    def add(self, received: int, taken: int) -> None:
        """``received`` messages have come in so far and ``taken`` have gone out."""
        marks = self._marks
        while marks and marks[0][0] <= taken:
            marks.popleft()
        marks.append((received, trio.current_time()))

    def oldest_s(self, taken: int) -> float:
        """How long the oldest waiting message has waited, in seconds."""
        for received, since in self._marks:
            if received > taken:
                return trio.current_time() - since
        return 0.0
