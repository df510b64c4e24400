"""What can go wrong with a client, as a tree.

::

    FanwireError
    ├── ConnectionFailed   the first connection could not be made
    │   └── Refused        … because the broker said no (also ends a connection that lived); it would say so again
    ├── ConnectionLost     a connection that lived is gone, and what waited for it cannot be answered
    ├── Closed             this client or subscription was closed, by you
    ├── RequestFailed      the broker answered a request with an error (`code` says which)
    │   └── NoResponders   … because nobody is subscribed to the topic of a request that wants a reply
    ├── RequestTimeout     no reply to a request came in time
    ├── StaleTopic         nothing was published for longer than a subscription wants to bear
    ├── SlowConsumer       a subscription was ended because its messages were not taken quickly enough
    ├── MessageTooLarge    a message was larger than ``max_message_bytes``; it was passed over, and all else goes on
    ├── BufferFull         more was published than may wait to be sent; nothing of this publish was kept
    └── Undecodable        a message's payload is not what its encoding says

What the caller alone can put right (a bad topic, a value that msgpack has no form for) is a
`fanwire.protocol.LocalProtocolError`, which is also a ``ValueError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .notices import Stale


class FanwireError(Exception):
    """Anything that goes wrong between this program and a broker."""


class ConnectionFailed(FanwireError):
    """The first connection could not be made; the message says what to do about it."""

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        """``cause``: the error of the system behind it, such as `ConnectionRefusedError`, `socket.gaierror` (the name
        is not known) or `ssl.SSLError`; None if there is none."""
        super().__init__(message)
        self.cause = cause


class Refused(ConnectionFailed):
    """The broker does not want this client. Trying again without a change would be answered alike."""

    def __init__(self, message: str, *, code: int) -> None:
        """``code``: a WebSocket close code (4001, 4003 …) or, below 1000, the HTTP status of the handshake."""
        super().__init__(message)
        self.code = code


class ConnectionLost(FanwireError):
    """The connection ended. Whether an unanswered request was carried out is not known."""

    def __init__(self, message: str, *, code: int = 1006) -> None:
        """``code``: the WebSocket close code; 1006 if there was none (RFC 6455 section 7.1.5)."""
        super().__init__(message)
        self.code = code


class Closed(FanwireError):
    """The client or subscription was closed by this program."""


class RequestFailed(FanwireError):
    """The broker answered with an error."""

    def __init__(self, code: str, message: str, detail: object = None) -> None:
        """``code``: one of the protocol's error codes, such as "forbidden"; ``detail``: what the broker added, if
        anything."""
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.detail = detail


class NoResponders(RequestFailed):
    """Nobody is subscribed to the topic of a request, so there will be no reply."""

    def __init__(self, topic: str) -> None:
        """``topic``: the request's."""
        super().__init__("no_responders", f"nobody is subscribed to {topic!r}, so nobody will reply")
        self.topic = topic


class RequestTimeout(FanwireError):
    """No reply to a request came in time."""

    def __init__(self, topic: str, timeout_s: float, what: str) -> None:
        """``topic``, ``timeout_s``: the request's; ``what`` has not happened."""
        super().__init__(f"{what} within {timeout_s:g} s (timeout_s) on {topic!r}")
        self.topic = topic
        self.timeout_s = timeout_s


class StaleTopic(FanwireError):
    """Nothing has come for as long as a subscription with ``on_stale="raise"`` wants to bear."""

    def __init__(self, message: str, stale: Stale) -> None:
        """``stale``: the facts."""
        super().__init__(message)
        self.stale = stale


class SlowConsumer(FanwireError):
    """A subscription was ended because messages came more quickly than they were taken."""

    def __init__(
        self,
        message: str,
        *,
        pattern: str,
        queued: int | None,
        queued_bytes: int | None,
        oldest_s: float | None,
        limit: int | None,
        at_broker: bool,
        measure: str | None = None,
    ) -> None:
        """The facts; None where they are not known.

        Args:
            message: What happened and what to do about it.
            pattern: The subscription's.
            queued: Messages that were waiting.
            queued_bytes: Bytes that were waiting; in this process with all that is held beside the payloads.
            oldest_s: How long the oldest of them had waited, in seconds.
            limit: Messages that may wait.
            at_broker: Whether the broker's queue ran over (the network or this process was too slow) or the buffer in
                this process (the handler was too slow).
            measure: What was over its limit: the broker's "queue" (messages waiting for this subscription),
                "max_pending" (bytes waiting for this connection), "stall_timeout" (nothing was taken for so long) or
                "max_age" (of the oldest that waited), or "buffer", in this process.
        """
        super().__init__(message)
        self.pattern = pattern
        self.queued = queued
        self.queued_bytes = queued_bytes
        self.oldest_s = oldest_s
        self.limit = limit
        self.at_broker = at_broker
        self.measure = measure


class BufferFull(FanwireError):
    """The buffer of outgoing publishes is full."""

    def __init__(self, messages: int, size: int, *, connected: bool) -> None:
        """``messages``, ``size`` (in bytes): what is waiting; ``connected``: whether there is a connection to take
        it."""
        remedy = (
            "await client.flush() now and then, or use await client.publish() or client.pipeline(), which wait"
            if connected
            else "there is no connection at the moment: wait for the state 'connected', or make the buffer larger"
            " (connect(…, outgoing_messages=…, outgoing_bytes=…))"
        )
        super().__init__(f"{messages} published messages ({size} bytes) wait to be sent, no more are taken; {remedy}")
        self.messages = messages
        self.size = size


class MessageTooLarge(FanwireError):
    """The broker sent a message that is larger than this client takes; it was passed over, and all else goes on."""

    def __init__(self, what: str, *, topic: str | None, offset: int | None, limit: int) -> None:
        """What is known of it.

        Args:
            what: Which message.
            topic: Where it was published, if that is known.
            offset: Its offset, where the topic keeps history; else None.
            limit: Bytes that the client takes: its ``max_message_bytes``.
        """
        super().__init__(
            f"{what} is larger than this client takes ({limit} bytes) and was passed over; let it take more:"
            " fanwire.connect(…, max_message_bytes=…)"
        )
        self.topic = topic
        self.offset = offset
        self.limit = limit


class Undecodable(FanwireError):
    """The payload of a message is not what its encoding says: its publisher's fault. `Message.payload` has the
    bytes."""
