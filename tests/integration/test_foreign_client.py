"""A client that has nothing of ours: the `websockets` library and plain msgpack, with the bytes of the documents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest
import trio
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from fanwire.broker import Broker, Config

_DEADLINE_S = 20


async def _with_broker(talk: Callable[[ClientConnection], None], *subprotocols: str) -> None:
    """Run ``talk`` in a thread, as the client of a fresh broker, after WELCOME."""

    def program(url: str) -> None:
        with connect(url, subprotocols=[Subprotocol(each) for each in subprotocols] or None) as socket:
            kind, greeting = _receive(socket)
            assert kind == 16
            assert greeting["version"] == 1
            talk(socket)

    async with Broker(Config(port=0)).serving() as broker:
        await trio.to_thread.run_sync(program, broker.urls[0])


def _receive(socket: ClientConnection) -> Any:
    """The one envelope of the next message."""
    data = socket.recv(timeout=_DEADLINE_S)
    assert isinstance(data, bytes)
    return msgpack.unpackb(data)


@pytest.mark.parametrize("subprotocols", [(), ("fanwire.v1",), ("mqtt", "fanwire.v1")])
async def test_subprotocol(subprotocols: tuple[str, ...]) -> None:
    """fanwire.v1 is agreed on when it is offered, and spoken when nothing is."""

    def talk(socket: ClientConnection) -> None:
        assert socket.subprotocol == ("fanwire.v1" if subprotocols else None)

    await _with_broker(talk, *subprotocols)


async def test_ping() -> None:
    """PING [7, id] is answered with OK and an empty map; a WebSocket ping with a pong."""

    def talk(socket: ClientConnection) -> None:
        socket.send(bytes.fromhex("92 07 03"))
        assert socket.recv(timeout=_DEADLINE_S) == bytes.fromhex("93 11 03 80")
        assert socket.ping(b"are you there?").wait(_DEADLINE_S)

    await _with_broker(talk)


async def test_subscribe_and_publish() -> None:
    """SUBSCRIBE, PUBLISH with and without an answer, MESSAGE, UNSUBSCRIBE: all of it in plain msgpack."""

    def talk(socket: ClientConnection) -> None:
        socket.send(msgpack.packb([2, 1, "stocks.*"]))
        kind, request, result = _receive(socket)
        assert (kind, request) == (17, 1)
        route = result["route"]

        socket.send(bytes.fromhex("94 04 00 ab 73746f636b732e4141504c c405 3138342e32"))
        kind, number, topic, offset, stamp, payload = _receive(socket)
        assert (kind, number, topic, offset, payload) == (19, route, "stocks.AAPL", 0, b"184.2")
        assert stamp > 1_700_000_000_000_000

        socket.send(msgpack.packb([4, 2, "stocks.MSFT", msgpack.packb(1.5), 1]))
        envelopes = sorted((_receive_all(socket, 2)), key=lambda envelope: envelope[0])
        assert envelopes[0] == [17, 2, {"offset": 0, "subscribers": 1, "lagging": 0}]
        assert envelopes[1][:4] == [19, route, "stocks.MSFT", 0]
        assert envelopes[1][5:] == [msgpack.packb(1.5), 1]

        socket.send(msgpack.packb([3, 3, route]))
        assert _receive(socket) == [17, 3, {}]
        socket.send(msgpack.packb([4, 4, "stocks.AAPL", b"nobody"]))
        assert _receive(socket) == [17, 4, {"offset": 0, "subscribers": 0, "lagging": 0}]

    await _with_broker(talk)


def _receive_all(socket: ClientConnection, count: int) -> list[Any]:
    """So many envelopes, in however many messages."""
    envelopes: list[Any] = []
    unpacker = msgpack.Unpacker()
    while len(envelopes) < count:
        data = socket.recv(timeout=_DEADLINE_S)
        assert isinstance(data, bytes)
        unpacker.feed(data)
        envelopes += unpacker
    return envelopes


async def test_fragments_and_several_envelopes() -> None:
    """One message may come in fragments and hold many envelopes; the answers keep their order."""

    def talk(socket: ClientConnection) -> None:
        requests = [msgpack.packb([7, request]) for request in range(1, 6)]
        socket.send(iter([requests[0] + requests[1][:1], requests[1][1:], b"", b"".join(requests[2:])]))
        assert _receive_all(socket, 5) == [[17, request, {}] for request in range(1, 6)]

    await _with_broker(talk)


async def test_error() -> None:
    """A request that cannot be met is answered with ERROR, and the connection lives on."""

    def talk(socket: ClientConnection) -> None:
        socket.send(msgpack.packb([2, 9, "stocks..x"]))
        kind, request, code, _ = _receive(socket)
        assert (kind, request, code) == (18, 9, "bad_pattern")
        socket.send(msgpack.packb([7, 10]))
        assert _receive(socket) == [17, 10, {}]

    await _with_broker(talk)


@pytest.mark.parametrize(("message", "code"), [("text", 1003), (b"\xc1", 1007)])
async def test_refused(message: str | bytes, code: int) -> None:
    """What is no msgpack ends the connection with the documented close code."""

    def talk(socket: ClientConnection) -> None:
        socket.send(message)
        with suppress(ConnectionClosedError):
            for _ in socket:  # until it is closed
                pass
        assert socket.close_code == code

    await _with_broker(talk)
