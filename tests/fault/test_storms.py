"""Very many who come to no good: those who are there notice nothing, and who is good gets in."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.protocol import Message, Welcome
from tests.integration.cli_programs import Program
from tests.integration.cli_programs import serving as served
from tests.integration.raw import RawClient, connected, serving
from tests.peers.healthy import Healthy
from tests.peers.raw import RawPeer, request

_STORM = 500


async def test_a_storm_from_one_address_disturbs_nobody() -> None:
    """Five hundred connections at once, some with a request and some with garbage: a few are looked at."""
    config = Config(port=0, unlimited_addresses="127.0.0.1", connect_rate=2, handshake_timeout_s=0.5)
    async with Broker(config).serving() as broker, trio.open_nursery() as nursery:
        here = partial(trio.open_tcp_stream, "127.0.0.1", broker.port or 0)
        subscriber = Healthy(await here())
        await nursery.start(subscriber.run, "t")
        before = len(os.listdir("/dev/fd"))

        async def attack(number: int) -> None:
            peer = RawPeer(await here(local_address="127.0.0.2"))
            await peer.say([(request() + b"\xff" * 100, b"\xff" * 100, b"")[number % 3]])
            await peer.listen()
            await trio.aclose_forcefully(peer.stream)

        published = 0
        async with trio.open_nursery() as storm:
            for number in range(_STORM):
                storm.start_soon(attack, number)
                if number % 50 == 0:
                    published += broker.publish("t", b"%d" % number)
            newcomer = RawClient(await here())
            await newcomer.open()
            await newcomer.expect(Welcome)
            await newcomer.close()

        with trio.fail_after(10):
            while len(subscriber.received) < published or len(os.listdir("/dev/fd")) > before:
                await wait_all_tasks_blocked(0.001)
        figures = broker.statistics()
        assert figures.limited["connect_rate"] > _STORM - 50
        assert figures.connections_total < 50
        assert 1011 not in figures.closed_by_broker
        nursery.cancel_scope.cancel()


async def test_silent_connections_do_not_keep_others_out(autojump_clock: MockClock) -> None:
    """Who says nothing holds its place until others come; all the time somebody good gets in at once."""
    async with serving(max_opening=50, max_connections=10) as broker:
        began = trio.current_time()
        silent = []
        for _ in range(5):
            silent += [await broker.open_stream() for _ in range(100)]
            await connected(broker)
            assert broker.statistics().opening <= 50

        assert trio.current_time() == began
        assert broker.statistics().limited["max_opening"] > 400
        for stream in silent:
            await stream.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
async def test_without_descriptors_those_connected_are_served() -> None:
    """A real process that has no more: it says so once, serves whom it has, and accepts again when there are some."""
    with served() as (program, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        async with AsyncExitStack() as streams:

            async def open_stream() -> trio.SocketStream:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                streams.push_async_callback(trio.aclose_forcefully, stream)
                return stream

            await _without_descriptors(program, open_stream)


async def _without_descriptors(program: Program, open_stream: Callable[[], Awaitable[trio.SocketStream]]) -> None:
    client = await RawClient(await open_stream()).open()
    await client.expect(Welcome)
    await client.subscribe("t")
    left = 5
    used = len(os.listdir(f"/proc/{program.process.pid}/fd"))
    resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, (used + left, used + left))

    crowd = [await open_stream() for _ in range(left + 10)]
    told = await _heard(program, "cannot accept connections for now")
    assert "Too many open files" in told
    for number in range(20):
        await client.publish("t", b"%d" % number)
        assert (await client.expect(Message)).payload == b"%d" % number

    for stream in crowd[: left + 5]:
        await trio.aclose_forcefully(stream)
    last = await RawClient(crowd[-1]).open()
    await last.expect(Welcome)
    assert "cannot" not in await _heard(program, "accept")
    await client.publish("t", b"after")
    assert (await client.expect(Message)).payload == b"after"


async def _heard(program: Program, text: str) -> str:
    found = await trio.to_thread.run_sync(program.heard, text, program.stderr)
    return str(found.string)
