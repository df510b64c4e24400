"""Lines of the log that somebody outside can cause, and as often as he likes: some of each kind, then their number.

Five hundred refused connections a second would be five hundred lines a second. Of each kind the first `BURST` of a
second are written; the rest is told when the second is over: ``and more in the last second of="handshake refused"
more=480``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from ..timing.timers import Watched
from .log import Speaker, debugging, log, log_of

if TYPE_CHECKING:
    from ..timing.timers import Watchdog

# Lines of one kind in one second. A line costs some 50 µs of everybody's time: 20 lines take one millisecond.
BURST = 20

# Kinds are few: an event and a code, a status or a place. One that is not known when there are so many is written.
MAX_KINDS = 1000

WINDOW_S = 1.0

Level = Literal["debug", "info", "warning", "error"]
Kind = tuple[Level, str, object]


class Repeats(Watched):
    """One for each broker."""

    __slots__ = ("_counts", "_watch", "_watchdog")

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._counts: dict[Kind, int] = {}
        self._watch: int | None = None

    def say(self, session: Speaker | None, level: Level, event: str, by: object = None, **facts: object) -> None:
        """Write a line, unless there were too many of its kind within a second: then it is counted.

        Args:
            session: Whom it is about, if it is about one.
            level: How important it is.
            event: What happened.
            by: What kinds are told apart by, beside the event. Never anything that a client chooses.
            facts: The keys of the line. What is asked for with a traceback (``exc_info``) is written with it.
        """
        if level == "debug" and not debugging():
            return
        if self._count((level, event, by)) <= BURST:
            getattr(log if session is None else log_of(session), level)(event, **facts)

    def refused(self, session: Speaker, code: str, req: int | None = None) -> None:
        """A request was answered with an error; ``req`` is the number that its client gave it."""
        if debugging():
            number = {} if req is None else {"req": req}
            self.say(session, "debug", "request refused", code, code=code, **number)

    def _count(self, kind: Kind) -> int:
        if self._watch is None:
            self._watch = self._watchdog.watch(self, trio.current_time() + WINDOW_S)
        count = self._counts.get(kind, 0) + 1
        if count > 1 or len(self._counts) < MAX_KINDS:
            self._counts[kind] = count
        return count

    def look(self, now: float) -> float | None:
        """See `Watched`: a second is over."""
        quiet = not self._counts
        self.tell()
        if quiet:
            self._watch = None
            return None
        return now + WINDOW_S

    def tell(self) -> None:
        """Say how many lines were not written since this was last said."""
        counts, self._counts = self._counts, {}
        for (level, event, by), count in counts.items():
            if count > BURST:
                by_what = {} if by is None else {"by": by}
                getattr(log, level)("and more in the last second", of=event, **by_what, more=count - BURST)
