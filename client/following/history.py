"""What the broker remembers of a topic, fetched without subscribing to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fanwire.protocol import Fetch

from ..answer_fields import field_of, not_in_protocol
from ..errors import RequestFailed
from ..exchange.answers import Result
from ..message import REPLAYED, Message
from ..notices import LostMessages

Ask: TypeAlias = Callable[[Fetch], Awaitable[Result]]


class History:
    """Messages of a topic, oldest first; made by `Client.history`.

    ::

        async for message in client.history("stocks.AAPL", last=100):
            print(message.offset, message.data)
    """

    def __init__(self, ask: Ask, first: Fetch, *, report_loss: bool) -> None:
        """``first``: asks for the first page."""
        self._ask = ask
        self._next: Fetch | None = first
        self._report_loss = report_loss
        self._epoch: object = None
        self._until = 0
        # The offset before the next one that is wanted, where that is known before anything has come.
        self._had = (first.offset or 0) if first.last is None and first.since is None else None
        self._page: deque[Message | LostMessages] = deque()

    def __aiter__(self) -> History:
        return self

    async def __anext__(self) -> Message:
        """The next message. With ``report_loss`` it may be a `LostMessages`."""
        while not self._page:
            if self._next is None:
                raise StopAsyncIteration
            self._take(self._next, await self._ask(self._next))
        return self._page.popleft()  # type: ignore[return-value]

    def _take(self, asked: Fetch, result: Result) -> None:
        epoch, head = field_of("FETCH", result, "epoch", str), field_of("FETCH", result, "offset", int)
        if self._epoch is None:
            self._epoch, self._until = epoch, head
        if epoch != self._epoch:
            raise RequestFailed("epoch_changed", f"{asked.topic}: the broker began anew while its history was fetched")
        before = self._had
        for listed in field_of("FETCH", result, "messages", (list, tuple)):
            offset = field_of("FETCH", listed, 0, int)
            if self._had is not None and offset <= self._had:
                raise not_in_protocol("FETCH", f"the message with the offset {offset} comes after {self._had}")
            if offset <= self._until:
                self._note_missing(asked.topic, offset)
                self._had = offset
                self._page.append(message_of(asked.topic, listed))
        more = field_of("FETCH", result, "more", bool) and self._had is not None and self._had < self._until
        if more and self._had == before:
            raise not_in_protocol("FETCH", "there is more, and none of it came")
        self._next = Fetch(1, asked.topic, offset=self._had, limit=asked.limit) if more else None

    def _note_missing(self, topic: str, offset: int) -> None:
        if self._report_loss and self._had is not None and self._had + 1 < offset:
            first, last = self._had + 1, offset - 1
            self._page.append(LostMessages(offset - first, "evicted", topic, first, last))


async def last_of(ask: Ask, topic: str) -> Message | None:
    """See `Client.last`."""
    try:
        result = await ask(Fetch(1, topic, last=1))
    except RequestFailed as error:
        if error.code == "not_kept":
            return None
        raise
    listed = field_of("FETCH", result, "messages", (list, tuple))
    return message_of(topic, listed[-1]) if listed else None


def message_of(topic: str, listed: Any) -> Message:
    """A message as it stands in a page: ``[offset, time, payload, encoding, meta]``."""
    values = [field_of("FETCH", listed, index, kind) for index, kind in enumerate((int, int, bytes, int, dict))]
    return Message((19, REPLAYED, topic, *values), topic)
