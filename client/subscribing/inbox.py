"""Where the replies to this client's requests come in: one feed for all of them, on one connection.

The broker gives each connection an inbox of its own (WELCOME), so this ends with the connection, and with it all
requests that are open.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol

from fanwire.protocol import LocalProtocolError, SubscribeOptions

from ..errors import FanwireError, MessageTooLarge, RequestFailed
from ..message import Raw
from ..notices import LostMessages
from .position import Beginning
from .wire_subscription import Feed

# Requests of a client that may wait for a reply. Each costs about 1 KiB, beside what its task does.
MOST_OPEN = 10_000


class Waiting(Protocol):
    """Somebody who waits for replies. Called synchronously, from the reader."""

    def take(self, raw: Raw) -> None:
        """A reply."""

    def fail(self, error: FanwireError) -> None:
        """There will be no more of them."""

    def expire(self) -> None:
        """The time is up."""


class Inbox(Feed):
    """Hands replies to whom they are for, by their topic."""

    def __init__(self, name: str) -> None:
        """``name``: as WELCOME has it."""
        # If it does not keep up, what ends is this and the open requests, not the connection.
        super().__init__(f"{name}.*", SubscribeOptions(on_slow="unsubscribe"), Beginning())
        self._name = name
        self._open: dict[str, Waiting] = {}
        self.error: FanwireError | None = None
        """Why nothing comes any more."""

    def __len__(self) -> int:
        """How many requests are open."""
        return len(self._open)

    def expect(self, waiting: Waiting) -> str:
        """Return a topic; what is published on it goes to ``waiting``.

        Whoever gets a request could answer another one, too, if the topics could be guessed from one another.

        Raises:
            LocalProtocolError: Too many wait already (`too_many`).
        """
        if len(self._open) >= MOST_OPEN:
            raise LocalProtocolError(
                f"{MOST_OPEN} requests of this client wait for a reply already; let fewer run at a time, or wait less"
                " long for each",
                code="too_many",
            )
        topic = f"{self._name}.{secrets.token_hex(8)}"
        self._open[topic] = waiting
        return topic

    def forget(self, topic: str) -> None:
        """Nobody waits for it any more."""
        self._open.pop(topic, None)

    def fail(self, topic: str, error: FanwireError) -> None:
        """The request that wants its replies there was refused."""
        if waiting := self._open.pop(topic, None):
            waiting.fail(error)

    # ------------------------------------------------------------- see `Feed`

    def receive(self, run: list[Raw], columns: list[tuple[Any, ...]], wire: int = 1 << 62) -> None:
        super().receive(run, columns, wire)
        for raw in run:
            if waiting := self._open.get(raw[2]):
                waiting.take(raw)

    def lose(self, lost: LostMessages) -> None:
        error = RequestFailed("slow_consumer", f"the broker lost replies before they got here ({lost.reason})")
        for topic in [lost.topic] if lost.topic else [*self._open]:
            self.fail(topic, error)

    def _tell_too_large(self, lost: LostMessages, error: MessageTooLarge) -> None:
        assert lost.topic is not None
        self.fail(lost.topic, error)

    def end(self, error: FanwireError) -> None:
        self.error = self.error or error
        waiting, self._open = self._open, {}
        for each in waiting.values():
            each.fail(error)
        super().end(error)

    def end_some(self, ending: list[Any], error: FanwireError) -> None:
        self.end(error)
