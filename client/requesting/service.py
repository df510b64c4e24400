"""Answering: requests as they come, each with the way back to who asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

from ..message import Message
from ..notices import LostMessages, Stale
from ..subscribing.subscription import Subscription

Reply: TypeAlias = Callable[[str, object, bool, Mapping[str, str] | None], Awaitable[None]]


class Request:
    """A message that mostly wants a reply."""

    __slots__ = ("_reply", "message")

    def __init__(self, message: Message, reply: Reply) -> None:
        """Made by `Service`."""
        self.message = message
        """As a subscriber gets it: topic, headers, payload …"""
        self._reply = reply

    @property
    def topic(self) -> str:
        """Where it was published."""
        return self.message.topic

    @property
    def data(self) -> Any:
        """What was asked. Raises `Undecodable` as `Message.data` does."""
        return self.message.data

    @property
    def wants_reply(self) -> bool:
        """Whether anybody waits for an answer. A plain publish on the topic is a request that wants none."""
        return self.message.reply_to is not None

    async def reply(self, data: object, *, raw: bool = False, headers: Mapping[str, str] | None = None) -> None:
        """Answer; may be called several times. If no reply is wanted nothing happens.

        Returns when the reply is on its way (at most it waits for room among what is to be sent); nobody knows whether
        who asked still waits for it.

        Args:
            data: As for `Client.publish`.
            raw: As for `Client.publish`.
            headers: As for `Client.publish`.

        Raises:
            ConnectionLost: There is no connection, and ``on_outage="raise"``.
            LocalProtocolError: The data or the size is wrong.
        """
        await self._reply(self.message.reply_to or "", data, raw, headers)

    def __repr__(self) -> str:
        return f"Request({self.message!r})"


class Service:
    """Use it as a context manager, then iterate over it.

    ::

        async with client.serve("sums.add") as requests:
            async for request in requests:
                await request.reply(sum(request.data))

    A request waits while the one before is handled. Where that takes long, hand them to tasks of their own.
    """

    def __init__(self, subscription: Subscription, reply: Reply) -> None:
        """Made by `Client.serve`."""
        self.subscription = subscription
        """What requests come by: says what was granted, what is waiting, what was lost."""
        self._reply = reply

    async def __aenter__(self) -> Service:
        """Subscribe. Raises as `Subscription` does."""
        await self.subscription.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.subscription.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Service:
        return self

    async def __anext__(self) -> Request:
        """The next request. With ``report_loss`` it may be a `LostMessages`, with ``heartbeat_s`` a `Stale`.

        Raises as `Subscription` does.
        """
        message = await anext(self.subscription)
        return message if isinstance(message, LostMessages | Stale) else Request(message, self._reply)
