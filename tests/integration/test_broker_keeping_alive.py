"""Who is alive, and who is not: progress counts, however far behind somebody is."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from fanwire.broker import Broker
from fanwire.protocol import Subscribe, SubscribeOptions, encode
from fanwire.protocol.frames import masked_frame
from fanwire.transport import memory_stream_pair
from tests.integration.raw import KEY, REQUEST, RawClient, serving, subscribed

SECOND = bytes(4000)


async def _after(seconds: float, broker: Broker) -> int:
    await trio.sleep(seconds)
    return broker.statistics().connections


async def test_a_reader_that_stays_as_far_behind_lives(autojump_clock: MockClock) -> None:
    """Bytes are always on the way to it, and always as many; it never comes to a ping that it could answer."""
    async with serving(ping_interval_s=2.0, ping_timeout_s=1.0) as broker:
        reader = await subscribed(broker, "feed")
        for _ in range(4):
            broker.publish("feed", SECOND)
        for _ in range(120):
            broker.publish("feed", SECOND)
            await trio.sleep(0.5)
            await reader.stream.receive_some(len(SECOND))

        assert broker.statistics().connections == 1
        assert await _after(7, broker) == 0  # it has stopped, and the stream would still take more
        assert [each.code for each in broker.closed_connections()] == [4010]
        await reader.stream.aclose()


async def test_a_ping_that_a_kernel_acknowledged_is_no_life(autojump_clock: MockClock) -> None:
    """It acknowledges for a program that hangs, too: only the program itself can answer."""
    async with serving(ping_interval_s=2.0, ping_timeout_s=1.0) as broker, trio.open_nursery() as nursery:
        reader = await subscribed(broker, "feed")

        async def read_and_say_nothing() -> None:
            while await reader.read():
                pass

        nursery.start_soon(read_and_say_nothing)

        assert await _after(7, broker) == 0
        nursery.cancel_scope.cancel()


async def test_what_a_stream_took_of_a_ping_is_no_life(autojump_clock: MockClock) -> None:
    """A stream that can only be waited for, as TLS, takes everything through the writer, pings too."""
    async with serving(ping_interval_s=2.0, ping_timeout_s=1.0) as broker, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(broker._handle, ours)
        await RawClient(theirs).open(Subscribe(1, "feed", SubscribeOptions()))
        assert await _after(1, broker) == 1

        assert await _after(7, broker) == 0
        nursery.cancel_scope.cancel()


async def test_a_client_that_answers_pings_lives(autojump_clock: MockClock) -> None:
    """On whatever stream, for as long as it likes."""
    async with serving(ping_interval_s=2.0, ping_timeout_s=1.0) as broker, trio.open_nursery() as nursery:
        for ours, theirs in (trio.testing.memory_stream_pair(), memory_stream_pair()):
            nursery.start_soon(broker._handle, ours)
            nursery.start_soon(_answer_pings, theirs)

        assert await _after(100, broker) == 2
        nursery.cancel_scope.cancel()


async def _answer_pings(stream: trio.abc.Stream) -> None:
    await stream.send_all(REQUEST + masked_frame(encode(Subscribe(1, "feed")), KEY))
    client = await RawClient(stream).open(request=b"")
    while frame := await client.frame():
        if frame.opcode == 9:
            await client.send_frame(frame.payload, 10)
