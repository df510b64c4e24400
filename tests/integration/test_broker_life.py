"""Starting, embedding, draining, ending: what is there afterwards is what was there before."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.protocol import Goodbye, LocalProtocolError, Message, Ok, Ping, Welcome
from fanwire.transport import memory_stream_pair
from tests.integration.raw import CAPACITY, Ended, RawClient, connected, serving, subscribed


def _tasks() -> int:
    """All of this trio run."""
    found, root = 0, trio.lowlevel.current_root_task()
    waiting = [root] if root else []
    while waiting:
        found += 1
        waiting += [task for nursery in waiting.pop().child_nurseries for task in nursery.child_tasks]
    return found


def _descriptors() -> set[str]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return {entry.name for entry in folder.iterdir()}


@asynccontextmanager
async def _leaving_nothing() -> AsyncIterator[None]:
    """The body leaves as many tasks and descriptors as it found."""
    await wait_all_tasks_blocked()
    before = _tasks(), len(_descriptors())
    yield
    await wait_all_tasks_blocked()
    assert (_tasks(), len(_descriptors())) == before


async def _over_tcp(broker: Broker) -> RawClient:
    assert broker.port is not None
    host = str(broker.config.host)
    client = await RawClient(await trio.open_tcp_stream(host, broker.port)).open()
    await client.expect(Welcome)
    return client


# ------------------------------------------------------------------- starting


async def test_serving_as_a_context_manager(autojump_clock: MockClock) -> None:
    """Clients come and go while the body runs; afterwards no task, descriptor or port is left."""
    async with _leaving_nothing():
        async with Broker(Config(port=0)).serving() as broker:
            assert broker.port
            assert broker.urls == (f"ws://127.0.0.1:{broker.port}/",)
            client, other = await _over_tcp(broker), await _over_tcp(broker)
            await client.subscribe("a")
            await other.publish("a", b"x")
            assert await client.payloads(1) == [b"x"]
            port = broker.port
            await client.close()
            await other.stream.aclose()
        assert not broker.urls
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_serving_as_a_task(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """`nursery.start` gives the broker once clients can come; `drain` ends the task."""
    async with _leaving_nothing(), trio.open_nursery() as inner:
        broker = Broker(Config(port=0))
        assert await inner.start(broker.serve) is broker
        client = await _over_tcp(broker)
        inner.start_soon(client.ended)
        await broker.drain()


async def test_beside_other_tasks(autojump_clock: MockClock) -> None:
    """Embedded in a program: its own publishes reach clients, and two brokers do not know of each other."""
    async with serving() as one, serving() as other:
        here, there = await subscribed(one, "a"), await subscribed(other, "a")
        assert (one.publish("a", b"1"), other.publish("a", b"2", encoding=2), one.publish("b", b"3")) == (1, 1, 0)

        assert (await here.expect(Message)).payload == b"1"
        message = await there.expect(Message)
        assert (message.payload, message.encoding) == (b"2", 2)


@pytest.mark.parametrize("topic", ["a.*", "", "$sys.stats", "x" * 256, "\ud800"])
async def test_publishing_from_inside_is_checked(topic: str, autojump_clock: MockClock) -> None:
    """What is no topic, or the broker's own, is the caller's fault, as documented."""
    async with serving() as broker:
        with pytest.raises(LocalProtocolError):
            broker.publish(topic, b"x")


async def test_only_bytes_are_published(autojump_clock: MockClock) -> None:
    """A text or a map would be a MESSAGE that no client understands."""
    async with serving() as broker:
        await subscribed(broker, "a")
        for payload in ("text", {"a": 1}, None, 5):
            with pytest.raises(TypeError, match="bytes"):
                broker.publish("a", cast("bytes", payload))


async def test_a_failure_of_the_body_surfaces_as_itself(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Not wrapped in a group; clients are told good-bye all the same."""
    failure = ValueError("the body's own")
    ended: list[Ended] = []

    async def leave(client: RawClient) -> None:
        ended.append(await client.ended())

    async def serve() -> None:
        async with serving() as broker:
            nursery.start_soon(leave, await connected(broker))
            raise failure

    with pytest.raises(ValueError, match="the body's own") as caught:
        await serve()
    await wait_all_tasks_blocked()
    assert caught.value is failure
    assert [(each.code, each.goodbye.code) for each in ended] == [(1001, "shutting_down")]


async def test_a_port_in_use_surfaces_as_itself(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """OSError, by either way of starting, and nothing is left."""
    async with Broker(Config(port=0)).serving() as first:
        assert first.port
        taken = Config(port=first.port)
        async with _leaving_nothing():
            with pytest.raises(OSError, match="in use") as caught:
                async with Broker(taken).serving():
                    pytest.fail("served")
            assert caught.value.errno == errno.EADDRINUSE
            with pytest.raises(OSError, match="in use"):
                await nursery.start(Broker(taken).serve)


async def test_a_broker_serves_once(autojump_clock: MockClock) -> None:
    """Starting it again is refused; so is a stream when it does not serve."""
    async with serving() as broker:
        pass
    with pytest.raises(RuntimeError, match="once"):
        await broker.serve()
    with pytest.raises(RuntimeError, match="does not serve"):
        await broker.open_stream()


async def test_ipv6(autojump_clock: MockClock) -> None:
    """An IPv6 host stands in brackets in the URL, and clients come by it."""
    try:
        async with Broker(Config(host="::1", port=0)).serving() as broker:
            assert broker.urls == (f"ws://[::1]:{broker.port}/",)
            client = await _over_tcp(broker)
            assert await client.ask(Ping(1)) == Ok(1)
            await client.close()
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6 loopback address")


# ------------------------------------------------------------------- draining


async def test_draining_tells_everybody(autojump_clock: MockClock) -> None:
    """GOODBYE shutting_down, each with a moment of its own to come back, then 1001; `serve` returns, in no time."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False, drain_spread_s=5.0))
        await nursery.start(broker.serve)
        clients = [await connected(broker) for _ in range(50)]
        moments = []

        async def leave(client: RawClient) -> None:
            ended = await client.ended()
            assert (ended.code, ended.goodbye.code, len(ended.envelopes)) == (1001, "shutting_down", 1)
            moments.append(ended.goodbye.retry_after_ms)

        for client in clients:
            nursery.start_soon(leave, client)
        began = trio.current_time()
        await broker.drain()
        await wait_all_tasks_blocked()

        assert len(set(moments)) > 25
        assert all(0 <= moment <= 5000 for moment in moments)
        assert trio.current_time() == began
        assert broker.statistics().closed_by_broker == {1001: 50}


@pytest.mark.parametrize("size", [100, 3 * CAPACITY])
async def test_draining_sends_first_what_was_published(size: int, autojump_clock: MockClock) -> None:
    """Messages taken in before are delivered before GOODBYE, also those that the stream does not take at once."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False))
        await nursery.start(broker.serve)
        client = await subscribed(broker, "a")
        payloads = [bytes([number]) * (size // 10) for number in range(10)]
        for payload in payloads:
            broker.publish("a", payload)
        nursery.start_soon(broker.drain)
        ended = await client.ended()

        assert [each.payload for each in ended.envelopes[:-1] if isinstance(each, Message)] == payloads
        assert (ended.code, ended.goodbye.code) == (1001, "shutting_down")


async def test_draining_sends_first_what_is_queued(autojump_clock: MockClock) -> None:
    """A client behind in reading gets all that waited for it, if it reads within the deadline."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False, drain_timeout_s=5.0))
        await nursery.start(broker.serve)
        client = await subscribed(broker, "a")
        for number in range(200):
            broker.publish("a", b"%03d" % number + b"x" * 1000)
            await wait_all_tasks_blocked()
        nursery.start_soon(broker.drain)
        await trio.sleep(4)
        ended = await client.ended()

        assert [int(each.payload[:3]) for each in ended.envelopes if isinstance(each, Message)] == list(range(200))
        assert isinstance(ended.envelopes[-1], Goodbye)


async def test_a_client_that_never_reads_does_not_hold_the_drain(autojump_clock: MockClock) -> None:
    """After the deadlines it is cut off; nobody else waits for it."""
    async with _leaving_nothing():
        async with trio.open_nursery() as nursery:
            broker = Broker(Config(listen=False, drain_timeout_s=5.0, linger_s=1.0, stall_timeout_s=None))
            await nursery.start(broker.serve)
            stuck, other = await subscribed(broker, "a"), await connected(broker)
            for _ in range(100):
                broker.publish("a", b"x" * 1000)
                await wait_all_tasks_blocked()
            began = trio.current_time()
            nursery.start_soon(broker.drain)
            assert (await other.ended()).code == 1001
            assert trio.current_time() == began
        assert 5.0 <= trio.current_time() - began <= 7.0
        await stuck.stream.aclose()


async def test_nobody_comes_in_during_a_drain(autojump_clock: MockClock) -> None:
    """Who is still handed in is sent away with 1001 and no WELCOME; the port is closed."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(port=0, drain_timeout_s=5.0))
        await nursery.start(broker.serve)
        staying, port = await _over_tcp(broker), broker.port
        assert port is not None
        nursery.start_soon(broker.drain)
        await wait_all_tasks_blocked()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
        late = await (await connected(broker, welcomed=False)).ended()
        assert (late.code, late.goodbye.code, len(late.envelopes)) == (1001, "shutting_down", 1)
        await staying.ended()


async def test_draining_twice_is_draining_once(autojump_clock: MockClock) -> None:
    """By two tasks, and once more when all is over."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False))
        await nursery.start(broker.serve)
        client = await connected(broker)
        nursery.start_soon(broker.drain)
        nursery.start_soon(broker.drain)
        assert (await client.ended()).code == 1001
    await broker.drain()
    assert broker.statistics().closed_by_broker == {1001: 1}


async def test_a_drain_may_be_cut_short(autojump_clock: MockClock) -> None:
    """Who has less patience than the deadlines cancels it: `serve` ends then."""
    async with _leaving_nothing():
        async with trio.open_nursery() as nursery:
            broker = Broker(Config(listen=False, drain_timeout_s=60.0, stall_timeout_s=None))
            await nursery.start(broker.serve)
            stuck = await subscribed(broker, "a")
            broker.publish("a", b"x" * 3 * CAPACITY)
            await wait_all_tasks_blocked()
            began = trio.current_time()
            with trio.move_on_after(2):
                await broker.drain()
        assert trio.current_time() - began == 2
        await stuck.stream.aclose()


async def test_cancelling_ends_everything_at_once(autojump_clock: MockClock) -> None:
    """No deadline is waited for, not even for a client that never reads; nothing is left."""
    async with _leaving_nothing():
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with Broker(Config(port=0)).serving() as broker:
                stuck, client = await subscribed(broker, "a"), await _over_tcp(broker)
                broker.publish("a", b"x" * 3 * CAPACITY)
                await wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == began
        await stuck.stream.aclose()
        await client.stream.aclose()


async def test_cancelling_the_task_closes_the_port(autojump_clock: MockClock) -> None:
    """Also when the broker was started as a task and is cancelled before anything came."""
    async with _leaving_nothing():
        async with trio.open_nursery() as nursery:
            broker = await nursery.start(Broker(Config(port=0)).serve)
            port = broker.port
            nursery.cancel_scope.cancel()
        async with Broker(Config(port=port)).serving():
            pass


class Reset(trio.abc.ReceiveStream):
    """The incoming half of a connection that was reset."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Fails as a socket does."""
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("reset by peer")

    async def aclose(self) -> None:
        """Nothing to close."""
        await trio.lowlevel.checkpoint()


async def test_handshakes_that_come_to_nothing_are_counted(autojump_clock: MockClock) -> None:
    """Refused, hung up, reset or too slow: each once, and nobody of them was ever connected."""
    ours, theirs = memory_stream_pair()
    async with serving(handshake_timeout_s=5.0) as broker:
        refused, gone, silent = [await broker.open_stream() for _ in range(3)]
        await refused.send_all(b"POST / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await refused.receive_some()).startswith(b"HTTP/1.1 405 ")
        await refused.aclose()
        await gone.send_all(b"GET / HT")
        await gone.aclose()
        await broker._handle(trio.StapledStream(ours, Reset()))
        await trio.sleep(6)

        statistics = broker.statistics()
        assert (statistics.connections_refused, statistics.connections_total) == (4, 0)
        assert await silent.receive_some() == b""
        await theirs.aclose()
