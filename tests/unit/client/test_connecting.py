"""Connecting to a peer that does not behave as a broker should, and closing."""

import pytest
import trio
from trio.testing import MockClock

from fanwire.client import ConnectionFailed, Refused, connect
from fanwire.protocol import Goodbye, Publish
from tests.unit.client.scripted_peer import ScriptedPeer, connected


async def _fail(peer: ScriptedPeer) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        async with connect("ws://peer/", open_stream=peer.open_stream):
            pytest.fail("connected")
    return caught.value


async def test_hello_and_welcome_make_a_connection(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The client says its name, and knows what WELCOME told."""
    async with connected(peer, name="me") as (client, _):
        assert (client.state, client.welcome["session"], client.error) == ("connected", "s1", None)


async def test_nobody_listens(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Without a broker the error says what to do, and there is one attempt only."""
    peer.unreachable = True

    error = await _fail(peer)

    assert "fanwire serve" in str(error)
    assert peer.attempts == 1


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (403, Refused), (400, Refused), (404, ConnectionFailed)])
async def test_http_refusal(
    peer: ScriptedPeer, autojump_clock: MockClock, status: int, kind: type[ConnectionFailed]
) -> None:
    """A refused handshake is told with its status and what the broker wrote."""
    peer.reject = status

    error = await _fail(peer)

    assert type(error) is kind
    assert f"HTTP {status}, no" in str(error)


async def test_no_welcome(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A WebSocket server that never says WELCOME is given up after the connect timeout."""
    peer.nursery.start_soon(peer.accept, None)
    began = trio.current_time()

    error = await _fail(peer)

    assert trio.current_time() - began == pytest.approx(10.0)
    assert "connect_timeout_s" in str(error)


async def test_end_of_stream_during_the_handshake(autojump_clock: MockClock) -> None:
    """A peer that hangs up is noticed at once, not at the timeout."""

    async def open_stream() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.aclose()
        return theirs

    with pytest.raises(ConnectionFailed, match="not as a WebSocket server does"):
        async with connect("ws://peer/", open_stream=open_stream):
            pytest.fail("connected")

    assert trio.current_time() == 0


async def test_goodbye_instead_of_welcome(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A token that is refused after the handshake is told as such."""

    async def refuse() -> None:
        connection = await peer.accept(welcome=None)
        await connection.send(Goodbye("unauthenticated", "who are you", 0))
        await connection.websocket.aclose(4001)

    peer.nursery.start_soon(refuse)

    error = await _fail(peer)

    assert isinstance(error, Refused)
    assert error.code == 4001
    assert "who are you" in str(error)


async def test_an_exception_of_the_block_comes_out_as_it_is(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """No group around it, no context added, and the broker sees a normal close."""
    mine = ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        async with connected(peer) as (_, end):
            raise mine

    assert caught.value is mine
    assert mine.__context__ is None
    assert await end.close_code() == 1000


async def test_a_cancelled_program_says_goodbye(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Cancelling the block closes the connection with 1000, in no time."""
    with trio.CancelScope() as scope:
        async with connected(peer) as (_, end):
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert await end.close_code() == 1000
    assert trio.current_time() == 0


async def test_closing_a_peer_that_does_not_answer(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A close frame that is never answered costs the closing timeout, no more."""
    async with connected(peer, close_timeout_s=2.0) as (_, end):
        end.freeze()

    assert trio.current_time() == pytest.approx(2.0)


async def test_what_was_published_is_sent_before_the_end(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Leaving the block sends what still waits."""
    async with connected(peer) as (client, end):
        client.publish_nowait("a", 1)

    assert (await end.expect(Publish)).payload == b"\x01"
