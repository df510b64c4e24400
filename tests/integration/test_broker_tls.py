"""A stream that can only be awaited: TLS, in memory."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.protocol import Ok, Ping, Publish, Unsubscribe, Welcome, encode
from fanwire.protocol.frames import Opcode
from fanwire.transport import memory_stream_pair
from tests.integration.raw import RawClient, serving


@pytest.fixture(scope="module")
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and one that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture
async def tls(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[tuple[Broker, RawClient]]:
    """A broker, and a client connected to it over TLS, in memory."""
    server, client = certificates
    ours, theirs = memory_stream_pair()
    async with serving(stall_timeout_s=10.0) as broker:
        assert broker._connections is not None
        broker._connections.start_soon(broker._handle, trio.SSLStream(ours, server, server_side=True))
        # As browsers do: the end of the stream will do, without TLS's own good-bye.
        stream = trio.SSLStream(theirs, client, server_hostname="localhost", https_compatible=True)
        raw = await RawClient(stream).open()
        await raw.expect(Welcome)
        yield broker, raw


async def test_tls(tls: tuple[Broker, RawClient], autojump_clock: MockClock) -> None:
    """A stream that can only be awaited: messages, answers, pings and large ones, all in order."""
    broker, client = tls
    route = await client.subscribe("a")
    payloads = [b"%d" % number for number in range(500)] + [b"x" * 300_000, b"last"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, *(Publish(0, "a", payload) for payload in payloads))
        assert await client.payloads(len(payloads)) == payloads
    await client.send_frame(b"?", Opcode.PING)
    assert await client.frame() == (Opcode.PONG, b"?")
    assert await client.ask(Unsubscribe(9, route)) == Ok(9)
    assert broker.statistics().delivered == len(payloads)


async def test_answers_before_a_fault_go_out_over_tls_too(
    tls: tuple[Broker, RawClient], autojump_clock: MockClock
) -> None:
    """What stood before malformed bytes is answered, also where nothing can be written at once."""
    _, client = tls
    await client.send_frame(encode(Ping(5)) + b"\xc1")
    assert await client.next() == Ok(5)
    assert (await client.ended()).code == 1007


async def test_a_slow_consumer_over_tls_is_dropped(tls: tuple[Broker, RawClient], autojump_clock: MockClock) -> None:
    """By the stall measure, in its time."""
    broker, client = tls
    await client.subscribe("a")
    broker.publish("a", b"x" * 300_000)
    await wait_all_tasks_blocked()
    broker.publish("a", b"waits")
    await trio.sleep(7)
    assert (broker.statistics().lagging, broker.statistics().slow_episodes) == (0, 0)
    await trio.sleep(1)  # 75 % of it are over: it is told before
    assert (broker.statistics().lagging, broker.statistics().slow_episodes) == (1, 1)
    await trio.sleep(4)
    assert (broker.statistics().slow_consumers, broker.statistics().connections) == (1, 0)
