"""A client by hand: frames and envelopes on a stream, so that a test sees each byte and nothing is done for it.

It reads only when told to. What it sends goes out as one masked WebSocket message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, TypeVar

import trio

from fanwire.broker import Broker, Config
from fanwire.protocol import (
    BrokerEnvelope,
    ClientEnvelope,
    Error,
    Goodbye,
    Message,
    Ok,
    Publish,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    Welcome,
    decode_from_broker,
    encode,
)
from fanwire.protocol.frames import Opcode, close_payload, masked_frame

KEY = b"\x01\x02\x03\x04"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: fanwire.v1\r\n\r\n"
)

# What an in-memory stream holds until its writer has to wait (`fanwire.transport.memory_stream_pair`).
CAPACITY = 65536

Envelope = TypeVar("Envelope")


class Frame(NamedTuple):
    """One frame of the broker's."""

    opcode: int
    payload: bytes


class Ended(NamedTuple):
    """How the broker closed: the code of its close frame, and the last envelopes."""

    code: int
    envelopes: list[BrokerEnvelope]

    @property
    def goodbye(self) -> Goodbye:
        """The last envelope, which is a GOODBYE."""
        assert isinstance(self.envelopes[-1], Goodbye)
        return self.envelopes[-1]


class RawClient:
    """One connection, from the client's side. Make it with `connected`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()
        self.envelopes: deque[BrokerEnvelope] = deque()
        self.messages: list[bytes] = []
        """Payloads of all the WebSocket messages read so far."""
        self._requests = 0

    # ---------------------------------------------------------------- bytes

    async def open(self, *first: ClientEnvelope, request: bytes = REQUEST) -> Self:
        """The opening handshake, with the first message in the same packet if there is one."""
        message = b"".join(map(encode, first))
        await self.stream.send_all(request + (masked_frame(message, KEY) if message else b""))
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            await self.read()
        assert self.received.startswith(b"HTTP/1.1 101 "), bytes(self.received)
        del self.received[: end + 4]
        return self

    async def read(self, most: int = 65536) -> int:
        """One read of the stream, of ``most`` bytes at most; the number of bytes, 0 at its end."""
        data = await self.stream.receive_some(most)
        self.received += data
        return len(data)

    async def frame(self) -> Frame | None:
        """The next frame; None if the stream ended between two."""
        while (frame := self._cut()) is None:
            if not await self.read():
                assert not self.received, "the stream ended inside a frame"
                return None
        return frame

    def _cut(self) -> Frame | None:
        """Take a whole frame off what was received (RFC 6455 section 5.2)."""
        data = self.received
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "FIN, no reserved bits"
        assert data[1] < 0x80, "a server does not mask"
        width = {126: 2, 127: 8}.get(data[1], 0)
        size = int.from_bytes(data[2 : 2 + width], "big") if width else data[1]
        if len(data) < 2 + width + size:
            return None
        frame = Frame(data[0] & 0x0F, bytes(data[2 + width : 2 + width + size]))
        del data[: 2 + width + size]
        return frame

    async def send_frame(self, payload: bytes, opcode: int = Opcode.BINARY) -> None:
        """Send one frame."""
        await self.stream.send_all(masked_frame(payload, KEY, opcode=opcode))

    # ------------------------------------------------------------ envelopes

    async def send(self, *envelopes: ClientEnvelope) -> None:
        """Send envelopes in one message."""
        await self.send_frame(b"".join(map(encode, envelopes)))

    async def next(self) -> BrokerEnvelope:
        """The next envelope."""
        while not self.envelopes:
            frame = await self.frame()
            assert frame is not None, "the stream ended"
            self._take(frame)
        return self.envelopes.popleft()

    def _take(self, frame: Frame) -> None:
        if frame.opcode == Opcode.BINARY:
            self.messages.append(frame.payload)
            self.envelopes += decode_from_broker(frame.payload)
        else:
            assert frame.opcode in (Opcode.PING, Opcode.PONG), frame

    async def expect(self, kind: type[Envelope]) -> Envelope:
        """The next envelope, which must be of that kind."""
        envelope = await self.next()
        assert isinstance(envelope, kind), envelope
        return envelope

    async def take(self, count: int) -> list[BrokerEnvelope]:
        """The next envelopes."""
        return [await self.next() for _ in range(count)]

    async def payloads(self, count: int) -> list[bytes]:
        """The payloads of the next envelopes, all of them MESSAGEs."""
        return [(await self.expect(Message)).payload for _ in range(count)]

    async def ask(self, request: ClientEnvelope) -> Ok | Error:
        """Send one request and read its answer, which must come next."""
        await self.send(request)
        answer = await self.next()
        assert isinstance(answer, Ok | Error), answer
        return answer

    async def subscribe(self, pattern: str, **options: Any) -> int:
        """Subscribe; the route."""
        answer = await self.ask(Subscribe(self.number(), pattern, SubscribeOptions(**options)))
        assert isinstance(answer, Ok), answer
        route: int = answer.result["route"]
        return route

    async def unsubscribe(self, route: int) -> None:
        """Unsubscribe, and read the OK."""
        assert isinstance(await self.ask(Unsubscribe(self.number(), route)), Ok)

    async def publish(self, topic: str, *payloads: bytes) -> None:
        """Publish without asking for answers, all in one message."""
        await self.send(*(Publish(0, topic, payload) for payload in payloads))

    def number(self) -> int:
        """A request id."""
        self._requests += 1
        return self._requests

    # -------------------------------------------------------------- the end

    async def ended(self) -> Ended:
        """Read until the broker's close frame, answer it, and see the stream end."""
        while True:
            frame = await self.frame()
            assert frame is not None, "the stream ended without a close frame"
            if frame.opcode == Opcode.CLOSE:
                break
            self._take(frame)
        await self.send_frame(frame.payload, Opcode.CLOSE)
        assert await self.frame() is None, "a frame after the close frame"
        await self.stream.aclose()
        return Ended(int.from_bytes(frame.payload[:2], "big"), list(self.envelopes))

    async def close(self) -> None:
        """Close in good order."""
        await self.send_frame(close_payload(1000), Opcode.CLOSE)
        while (frame := await self.frame()) is not None:
            if frame.opcode == Opcode.CLOSE:
                break
        await self.stream.aclose()


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Broker]:
    """A broker in memory. Clocks that a test does not mean are off, so that a mock clock never jumps to them."""
    quiet = {"listen": False, "ping_interval_s": None, "stall_timeout_s": None, "max_age_s": None}
    async with Broker(Config(**{**quiet, **settings})).serving() as broker:
        yield broker


async def connected(broker: Broker, *, welcomed: bool = True, request: bytes = REQUEST) -> RawClient:
    """A new client of ``broker``, after its WELCOME."""
    client = await RawClient(await broker.open_stream()).open(request=request)
    if welcomed:
        await client.expect(Welcome)
    return client


async def subscribed(broker: Broker, pattern: str, **options: Any) -> RawClient:
    """A new client with one subscription."""
    client = await connected(broker)
    await client.subscribe(pattern, **options)
    return client


def code_of(answer: object) -> tuple[int, str]:
    """Id and code of an ERROR; it must be one, and say something to people."""
    assert isinstance(answer, Error), answer
    assert answer.message
    return answer.id, answer.code
