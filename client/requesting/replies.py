"""Asking: a request, and the replies to it as they come."""

from __future__ import annotations

from collections import deque
from types import TracebackType

import trio

from ..checks import check_count, check_seconds
from ..errors import FanwireError, NoResponders, RequestFailed, RequestTimeout, SlowConsumer
from ..message import Message, Raw
from ..subscribing.buffer_options import BufferOptions
from ..subscribing.weight import weighed, weight_of
from .requester import OpenRequest, Question, Requester


class Replies:
    """Use it as a context manager, then iterate over it.

    ::

        async with client.request_many("who.is.there", None, timeout_s=0.5) as replies:
            async for reply in replies:
                print(reply.data)

    It ends after as many replies as were asked for, or when its time is up (`timed_out`). Leave the block earlier when
    you have what you want; nothing of the request stays behind.
    """

    def __init__(self, requester: Requester, question: Question, timeout_s: float, most: int | None) -> None:
        """Made by `Client.request_many`."""
        check_seconds("timeout_s", timeout_s, endless=True)
        if most is not None:
            check_count("most", most)
        self._requester = requester
        self._question = question
        self._timeout_s = timeout_s
        self._most = most
        self._asked: OpenRequest | None = None
        self._waiting: deque[Raw] = deque()
        self._bytes = 0
        self._error: FanwireError | None = None
        self._expired = False
        self._arrived = trio.lowlevel.ParkingLot()
        self.count = 0
        """Replies taken so far."""
        self.timed_out = False
        """Whether it has ended because its time was up."""

    async def __aenter__(self) -> Replies:
        """Send the request. What comes of it is told by iterating.

        Raises:
            RequestTimeout: It could not be sent in time.
            LocalProtocolError: It cannot be sent at all, or this client has too many requests open.
            FanwireError: There is no connection, and none is to be waited for.
        """
        await self._send()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def first(self) -> Message:
        """Send the request, return the first reply. See `Client.request`."""
        try:
            await self._send()
            return await self._next()
        except StopAsyncIteration:
            raise self._too_late("no reply came") from None
        finally:
            self._close()

    async def _send(self) -> None:
        if self._asked:
            raise RuntimeError("a request is sent once; call client.request_many(…) again")
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_time() + self._timeout_s
        self._asked = self._requester.ask_nowait(self._question, self, deadline)
        if self._asked:
            return
        with trio.move_on_at(deadline):
            while not self._asked:
                await self._requester.possible()
                self._asked = self._requester.ask_nowait(self._question, self, deadline)
        if not self._asked:
            raise self._too_late("the request could not be sent")

    def _too_late(self, what: str) -> RequestTimeout:
        return RequestTimeout(self._question.topic, self._timeout_s, what)

    def _close(self) -> None:
        if self._asked:
            self._asked.forget()
        self._waiting.clear()

    # ------------------------------------------------------ from the reader

    def take(self, raw: Raw) -> None:
        """See `Waiting`."""
        if self._error or self._expired:
            return
        raw = weighed([raw])[0]
        size = self._bytes + weight_of(raw)
        if self._waiting and (len(self._waiting) >= BufferOptions.BUFFER or size > BufferOptions.BUFFER_BYTES):
            self.fail(self._too_slow())
            return
        self._bytes = size
        self._waiting.append(raw)
        self._arrived.unpark_all()

    def fail(self, error: FanwireError) -> None:
        """See `Waiting`."""
        if isinstance(error, RequestFailed) and error.code == "no_responders":
            error = NoResponders(self._question.topic)
        self._error = self._error or error
        self._arrived.unpark_all()

    def expire(self) -> None:
        """See `Waiting`."""
        self._expired = True
        self._arrived.unpark_all()

    def _too_slow(self) -> SlowConsumer:
        return SlowConsumer(
            f"the request on {self._question.topic!r} was ended: {len(self._waiting)} replies ({self._bytes} bytes)"
            " waited to be taken, and one more did not fit; take them more quickly",
            pattern=self._question.topic,
            queued=len(self._waiting),
            queued_bytes=self._bytes,
            oldest_s=None,
            limit=BufferOptions.BUFFER,
            at_broker=False,
            measure="buffer",
        )

    # ------------------------------------------------------ for who has asked

    def __aiter__(self) -> Replies:
        return self

    async def __anext__(self) -> Message:
        """The next reply.

        Raises:
            NoResponders: Nobody is subscribed to the topic.
            ConnectionLost: The connection went.
            SlowConsumer: Replies came more quickly than they were taken.
            RequestFailed: The broker refused the request.
        """
        if self._waiting or self._error or self._expired or self.count == self._most:
            await trio.lowlevel.checkpoint()
        return await self._next()

    async def _next(self) -> Message:
        """The same, without a checkpoint if there is something."""
        if self.count == self._most:
            raise StopAsyncIteration
        if not self._asked:
            raise RuntimeError("replies come once the request was sent: use `async with client.request_many(…)`")
        while not (self._waiting or self._error or self._expired):
            await self._arrived.park()
        if self._waiting:
            self.count += 1
            raw = self._waiting.popleft()
            self._bytes -= weight_of(raw)
            return Message(raw, None)
        if self._error:
            raise self._error.with_traceback(None)
        self.timed_out = True
        raise StopAsyncIteration
