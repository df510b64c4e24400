"""A broker that does what a test tells it to, and nothing else: for what the client does when a peer misbehaves."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar, Unpack

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from fanwire.client import Client, connect
from fanwire.client.config import Settings
from fanwire.protocol import (
    SUBPROTOCOL,
    BrokerEnvelope,
    ClientEnvelope,
    Hello,
    Message,
    Ok,
    Rejected,
    Subscribe,
    Welcome,
    decode_from_client,
    encode,
)
from fanwire.transport import memory_stream_pair

WELCOME = Welcome(
    {
        "session": "s1",
        "server": "scripted",
        "version": 1,
        "max_message": 1 << 20,
        "max_batch": 65536,
        "ping_interval": 25.0,
    }
)

_T = TypeVar("_T", bound=ClientEnvelope)


class PeerConnection:
    """The peer's end of one connection."""

    def __init__(self, websocket: WebSocketConnection, stream: trio.abc.Stream, reader: trio.CancelScope) -> None:
        self.websocket = websocket
        self.stream = stream
        self._reader = reader
        self.messages = 0  # WebSocket messages received
        self._envelopes: deque[ClientEnvelope | Rejected] = deque()

    async def send(self, *envelopes: BrokerEnvelope) -> None:
        """All in one WebSocket message."""
        await self.websocket.send_message(b"".join(map(encode, envelopes)))

    async def receive(self) -> ClientEnvelope | Rejected:
        while not self._envelopes:
            message = await self.websocket.get_message()
            assert isinstance(message, bytes)
            self.messages += 1
            self._envelopes.extend(decode_from_client(message))
        return self._envelopes.popleft()

    async def expect(self, kind: type[_T]) -> _T:
        """The next envelope, which must be of this kind."""
        envelope = await self.receive()
        assert isinstance(envelope, kind), envelope
        return envelope

    async def grant(self, route: int, **terms: object) -> Subscribe:
        """Answer the SUBSCRIBE that must come next."""
        subscribe = await self.expect(Subscribe)
        await self.send(Ok(subscribe.id, {"route": route, **terms}))
        return subscribe

    async def close_code(self) -> int:
        """How the client closes; what it says before is thrown away."""
        with pytest.raises(ConnectionClosed) as closed:
            await self._read_on()
        assert closed.value.reason
        return int(closed.value.reason.code)

    async def _read_on(self) -> None:
        while True:
            await self.websocket.get_message()

    def freeze(self) -> None:
        """Read no more, answer nothing, stay connected."""
        self._reader.cancel()

    async def cut(self) -> None:
        """End the stream without a word."""
        await trio.aclose_forcefully(self.stream)


class ScriptedPeer:
    """Accepts any number of connections, one after the other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._arrivals, self._arrived = trio.open_memory_channel[PeerConnection](16)
        self.attempts = 0
        self.reject: int | None = None
        self.unreachable = False

    async def open_stream(self) -> trio.abc.Stream:
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if self.unreachable:
            raise OSError("nobody listens")
        ours, theirs = memory_stream_pair(1 << 20)
        self.nursery.start_soon(self._accept, ours)
        return theirs

    async def _accept(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as reading:
            request = await wrap_server_stream(reading, stream, receive_buffer_size=None)
            if self.reject:
                await request.reject(self.reject, body=b"no")
                return
            websocket = await request.accept(subprotocol=SUBPROTOCOL)
            await self._arrivals.send(PeerConnection(websocket, stream, reading.cancel_scope))

    async def accept(self, welcome: Welcome | None = WELCOME) -> PeerConnection:
        """The next connection, after its HELLO."""
        connection = await self._arrived.receive()
        await connection.expect(Hello)
        if welcome:
            await connection.send(welcome)
        return connection


def message(route: int, data: int, topic: str | None = None) -> Message:
    """A MESSAGE whose payload is one small number."""
    return Message(route, topic, 0, 1_700_000_000_000_000, bytes((data,)), 1)


@asynccontextmanager
async def connected(peer: ScriptedPeer, **settings: Unpack[Settings]) -> AsyncIterator[tuple[Client, PeerConnection]]:
    """A client of ``peer``, and the peer's end of its first connection."""
    ends: list[PeerConnection] = []

    async def accept() -> None:
        ends.append(await peer.accept())

    settings.setdefault("draw", lambda: 0.5)
    peer.nursery.start_soon(accept)
    settings["open_stream"] = peer.open_stream
    async with connect("ws://peer/", **settings) as client:
        yield client, ends[0]
