"""What a proxy between client and broker answers, closes and cuts is an outage: the client comes back.

Only the broker's own word is final: its GOODBYE, or its header in a refused handshake.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Client, ConnectionFailed, ConnectionLost, Refused, connect
from fanwire.protocol import Goodbye
from fanwire.protocol.codes import REFUSAL_HEADER
from fanwire.transport import memory_stream_pair
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected


@pytest.mark.parametrize(
    "code",
    [None, "cut", 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 1015, 2999, 3000, 4000, 4001, 4003],
)
async def test_closed_by_a_proxy(peer: ScriptedPeer, autojump_clock: MockClock, code: int | str | None) -> None:
    """Whatever close code a proxy chooses, or none: the client comes back."""
    async with connected(peer) as (client, end):
        if code == "cut":
            await end.cut()
        else:
            body = b"" if code is None else struct.pack("!H", code) + b"proxy restarting"
            await end.stream.send_all(bytes((0x88, len(body))) + body)

        await peer.accept()
        await wait_all_tasks_blocked()

        assert client.state == "connected"


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 407, 429, 500, 502, 503, 504])
async def test_refused_by_a_proxy(peer: ScriptedPeer, autojump_clock: MockClock, status: int) -> None:
    """Once the broker has welcomed this client, a proxy that refuses the handshake is waited out."""
    async with connected(peer, reconnect_base_s=1.0) as (client, end):
        peer.reject = status
        await end.cut()
        await trio.sleep(20)
        assert client.state != "closed"
        assert f"HTTP {status}" in str(client.error)
        peer.reject = None

        await peer.accept()


@pytest.mark.parametrize("code", ["unauthenticated", "expired", "forbidden"])
@pytest.mark.parametrize("close", [1000, 4001, 4003, None])
async def test_the_brokers_own_goodbye(
    peer: ScriptedPeer, autojump_clock: MockClock, code: str, close: int | None
) -> None:
    """It is final, however the connection ends behind it."""
    async with connected(peer) as (client, end):
        await end.send(Goodbye(code, "not you", 0))
        await (end.cut() if close is None else end.websocket.aclose(close))
        await client._states.wait_until(client.state.CLOSED)

        assert isinstance(client.error, Refused)
        assert "not you" in str(client.error)
    assert peer.attempts == 1


@asynccontextmanager
async def _answering(*responses: bytes) -> AsyncIterator[trio.abc.Stream]:
    """A stream at whose other end every request is answered with one of these, byte for byte."""
    ours, theirs = memory_stream_pair(1 << 20)

    async def answer() -> None:
        with suppress(trio.BrokenResourceError):
            await ours.receive_some(65536)
            for response in responses:
                await ours.send_all(response)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        yield theirs
        nursery.cancel_scope.cancel()


async def _fail(stream: trio.abc.Stream) -> ConnectionFailed:
    async def open_stream() -> trio.abc.Stream:
        return stream

    with pytest.raises(ConnectionFailed) as caught:
        async with connect("ws://peer/", open_stream=open_stream):
            pytest.fail("connected")
    return caught.value


async def test_the_brokers_own_refusal_of_a_handshake(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The header of the broker marks it: there is no other attempt."""
    response = f"HTTP/1.1 401 no\r\n{REFUSAL_HEADER}: fanwire.v1\r\nContent-Length: 2\r\n\r\nno".encode()

    async def answered() -> trio.abc.Stream:
        if not peer.attempts:
            return await peer.open_stream()
        peer.attempts += 1
        ours, theirs = memory_stream_pair(1 << 20)
        await ours.send_all(response)
        return theirs

    async with trio.open_nursery() as nursery:
        ends: list[PeerConnection] = []

        async def accept() -> None:
            ends.append(await peer.accept())

        nursery.start_soon(accept)
        async with connect("ws://peer/", open_stream=answered) as client:
            await ends[0].cut()
            await client._states.wait_until(client.state.CLOSED)

            assert isinstance(client.error, Refused)
            assert client.error.code == 401
    assert peer.attempts == 2


async def test_retry_after(autojump_clock: MockClock) -> None:
    """A refusal that may pass says so."""
    async with _answering(b"HTTP/1.1 503 busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy") as stream:
        error = await _fail(stream)

    assert "HTTP 503, busy" in str(error)
    assert "try again later" in str(error)


@pytest.mark.parametrize("head", [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 2000000\r\n"])
async def test_a_refusal_without_end(autojump_clock: MockClock, head: bytes) -> None:
    """So much is read of its body as an error message may need, and no more."""
    part = b"3e8\r\n" + b"n" * 1000 + b"\r\n"
    async with _answering(b"HTTP/1.1 500 no\r\n" + head + b"\r\n", *[part] * 2000) as stream:
        error = await _fail(stream)

    assert "HTTP 500" in str(error)
    assert "nnn" in str(error)
    assert len(str(error)) < 1000
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    "response", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff\xfe\r\n\r\n", b"HTTP/1.1\r\n\r\n"]
)
async def test_no_http(autojump_clock: MockClock, response: bytes) -> None:
    """What answers with anything else is no WebSocket server."""
    async with _answering(response) as stream:
        assert "is that the broker's address?" in str(await _fail(stream))


async def test_a_goodbye_that_asks_for_years(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """An hour is the longest that the client stays away."""
    async with connected(peer) as (_, end):
        await end.send(Goodbye("shutting_down", "bye", 2**63))
        await end.websocket.aclose(1001)
        await peer.accept()

        assert trio.current_time() == pytest.approx(3600)


async def _log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fanwire.client.connection"]


async def test_an_outage_in_the_log(
    peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost, back and what may be missing: one line each, at the level that a program shows without any set-up."""
    async with connected(peer, draw=lambda: 1.0) as (client, end):
        await _subscribed(client, end, 5)
        peer.unreachable = True
        await end.cut()
        await trio.sleep(3)
        peer.unreachable = False
        again = await peer.accept()
        for route in range(5):
            await again.grant(route)
        await wait_all_tasks_blocked()

        lost, back, missing = await _log_lines(caplog)
        assert "broke off" in lost
        assert "again after 3.8 s, at attempt 4" in back
        assert "'t0', 't1', 't2' and 2 more" in missing
        assert {record.levelname for record in caplog.records} == {"WARNING"}


async def _subscribed(client: Client, end: PeerConnection, count: int) -> None:
    async def grant() -> None:
        for route in range(count):
            await end.grant(route)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(grant)
        for number in range(count):
            await client.subscribe(f"t{number}").__aenter__()


async def test_a_connection_that_flaps_does_not_fill_the_log(
    peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Outages that follow one another closely are counted; one that lasts is told in any case."""
    async with connected(peer, draw=lambda: 0.5, reconnect_base_s=0.01, reconnect_most_s=0.2) as (_, end):
        for _ in range(50):
            await end.cut()
            end = await peer.accept()
            await wait_all_tasks_blocked()
        assert len(await _log_lines(caplog)) == 2
        peer.unreachable = True
        await end.cut()
        await trio.sleep(20)

        assert "49 more outages" in (await _log_lines(caplog))[-1]
        assert len(await _log_lines(caplog)) == 3


async def test_the_end_in_the_log(
    peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that no other one follows is told, too; one that the program closes is not."""
    async with connected(peer, reconnect=False) as (client, end):
        await end.cut()
        await client._states.wait_until(client.state.CLOSED)
        assert isinstance(client.error, ConnectionLost)
    async with connected(peer):
        pass

    lines = await _log_lines(caplog)
    assert len(lines) == 1
    assert "ended for good" in lines[0]
