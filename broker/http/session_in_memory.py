"""A session for a client that speaks no WebSocket: the broker's own end of a connection in memory.

Who reads a topic over HTTP has a session like any other: the same judges, policies, measures of slowness and lists.
Nothing but this file knows that a WebSocket is spoken there. What is not taken from here waits there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from fanwire.protocol import BrokerEnvelope, Hello, Subscribe, decode_from_broker, encode
from fanwire.protocol.frames import FrameSplitter, Opcode, close_payload, masked_frame
from fanwire.transport import memory_stream_pair

from ..sessions.authentication import vouch
from ..sessions.session import Session

if TYPE_CHECKING:
    from .caller import Caller

# Between the session and us. Little: what lies there can no more be replaced by something newer, nor is it judged.
CAPACITY = 16 * 1024

_KEY = b"\0\0\0\0"  # there is nobody in between
_NO_LIMIT = 2**62  # what the broker sends is bounded already
_END_OF_HEAD = b"\r\n\r\n"
_PING, _CLOSE = (bytes((0x80 | opcode,)) for opcode in (Opcode.PING, Opcode.CLOSE))
_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: fanwire\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nUser-Agent: {agent}\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Received(NamedTuple):
    """What came at once."""

    envelopes: Sequence[BrokerEnvelope]
    pinged: bool
    """Whether the session wants a sign of life (`Attached.pong`), after these."""


class Attached:
    """One session, and the client's end of it."""

    def __init__(self, caller: Caller, agent: str) -> None:
        """Nothing is opened yet.

        Args:
            caller: Whose session it will be.
            agent: What program that is, as it says.
        """
        self.session = Session(caller.hub)
        self._caller = caller
        self._agent = agent
        self._stream, self._theirs = memory_stream_pair(CAPACITY)
        self._splitter = FrameSplitter(client=True, max_message=_NO_LIMIT)

    def vouch(self) -> None:
        """Say who it is. Synchronous; `run` must follow.

        Raises:
            TurnedAway: A proxy asks for somebody with too many connections.
        """
        caller = self._caller
        if caller.is_forwarded:
            caller.hub.door.move(self.session, caller.peer.numeric)
        vouch(self.session, caller.peer, caller.identity, admin=caller.admin)

    async def run(self) -> None:
        """Run the session to its end. Never raises."""
        await self.session.run(self._theirs)

    async def open(self, subscribe: Subscribe) -> None:
        """Shake hands, say HELLO, and subscribe. The answers come with `receive`.

        Raises:
            trio.BrokenResourceError: It has ended.
        """
        request = _REQUEST.format(path=self.session.config.path, agent=self._agent).encode("latin-1")
        await self._stream.send_all(request)
        await self._send(encode(Hello(1)) + encode(subscribe))
        received = bytearray()
        while (end := received.find(_END_OF_HEAD)) < 0:
            if not (data := await self._stream.receive_some()):
                raise trio.BrokenResourceError("the session ended before it began")
            received += data
        self._splitter.feed(bytes(received[end + len(_END_OF_HEAD) :]))

    async def receive(self) -> Received | None:
        """What comes next; None: it has ended."""
        while True:
            messages: list[bytes] = []
            control = self._splitter.take(messages)
            if control.startswith(_CLOSE):
                await self.close()
            pinged = control.startswith(_PING)
            if messages or pinged:
                return Received([each for message in messages for each in decode_from_broker(message)], pinged)
            del messages
            if control:
                continue
            if not (data := await self._stream.receive_some()):
                return None
            if not self._splitter.peer_closed:
                self._splitter.feed(data)

    async def pong(self) -> None:
        """The client lives."""
        await self._send(b"", Opcode.PONG)

    async def close(self) -> None:
        """The client wants no more, or agrees to that. Nothing follows: the session need not wait for it."""
        await self._send(close_payload(1000), Opcode.CLOSE)
        await self._stream.send_eof()

    async def _send(self, payload: bytes, opcode: int = Opcode.BINARY) -> None:
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError
        ):  # it has ended, and tells why by what can still be received
            await self._stream.send_all(masked_frame(payload, _KEY, opcode=opcode))
