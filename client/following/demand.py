"""Which patterns anybody is subscribed to, for publishers who would rather not work for nobody."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from fanwire.protocol import LocalProtocolError, check_pattern, patterns_overlap
from fanwire.protocol.fields import shown

from ..answer_fields import field_of, not_in_protocol
from ..errors import RequestFailed
from ..notices import LostMessages
from ..subscribing.subscription import Subscription

# Patterns that are followed, at some 350 bytes each.
MAX_PATTERNS = 250_000

_PART: tuple[tuple[str, type[int]], ...] = (("part", int), ("more", bool))


def _pattern(told: object) -> str:
    try:
        if type(told) is str:
            return check_pattern(told)
    except LocalProtocolError:
        pass
    raise not_in_protocol("SUBSCRIBE to demand", f"a pattern is {shown(told)}")


class Demand:
    """Use it as a context manager, then iterate over it: pairs of a pattern and whether it is wanted.

    ::

        async with client.demand("ticker.*") as demand:
            async for pattern, wanted in demand:
                ...

    A pattern is wanted while anybody is subscribed to it, this client included. Only patterns that some topic of the
    given one matches too are told of; those wanted already come first. A pattern is never given twice in the same
    state. Over a lost connection the states stay as they were; the next one brings the differences.
    """

    def __init__(self, subscription: Subscription, pattern: str) -> None:
        """Made by `Client.demand`."""
        self._subscription = subscription
        self._wanted: dict[str, None] = {}
        self._listed: dict[str, None] | None = None  # the parts of a list that have come, while some are missing
        self._changes: deque[tuple[str, bool]] = deque()
        self.pattern = pattern
        """What changes are told of."""

    async def __aenter__(self) -> Demand:
        """Begin to listen; returns once the broker has said yes. Raises as `Subscription` does."""
        await self._subscription.__aenter__()
        try:
            if self._subscription.shared:  # the broker has given its list already: to the others
                await self._subscription.change()
        except BaseException as error:
            await self._subscription.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._subscription.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Demand:
        return self

    async def __anext__(self) -> tuple[str, bool]:
        """The next change. Raises as `Subscription` does."""
        while not self._changes:
            message = await anext(self._subscription)
            if isinstance(message, LostMessages):
                self._listed = None  # a part may be among them; a connection begins with a whole list
            else:
                self._take(message.data)
        return self._changes.popleft()

    def _take(self, event: object) -> None:
        """What the broker says; see docs/operations.md. Events that a later one may know are none of ours."""
        kind = field_of("SUBSCRIBE to demand", event, "event", str)
        if kind == "all":
            patterns = field_of("SUBSCRIBE to demand", event, "patterns", list)
            part, more = (field_of("SUBSCRIBE to demand", event, name, each) for name, each in _PART)
            self._take_part([_pattern(each) for each in patterns], part, more)
        elif kind in ("wanted", "unwanted"):
            pattern = _pattern(field_of("SUBSCRIBE to demand", event, "pattern", str))
            if patterns_overlap(self.pattern, pattern):
                self._set(pattern, kind == "wanted")
        if len(self._wanted) + len(self._listed or ()) > 2 * MAX_PATTERNS:
            raise RequestFailed("too_many", f"more than {MAX_PATTERNS:,} patterns that overlap {self.pattern!r}", {})

    def _take_part(self, patterns: list[str], part: int, more: bool) -> None:
        if part == 0:
            self._listed = {}
        if self._listed is None:
            return  # its beginning was for somebody else, or was lost
        self._listed |= dict.fromkeys(each for each in patterns if patterns_overlap(self.pattern, each))
        if more:
            return
        listed, self._listed = self._listed, None
        for pattern in [each for each in self._wanted if each not in listed]:
            self._set(pattern, False)
        for pattern in listed:
            self._set(pattern, True)

    def _set(self, pattern: str, wanted: bool) -> None:
        if (pattern in self._wanted) == wanted:
            return
        if wanted:
            self._wanted[pattern] = None
        else:
            del self._wanted[pattern]
        self._changes.append((pattern, wanted))
