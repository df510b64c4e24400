"""Who vanishes is found out, and nothing of it stays (protocol.md: 4010, no sign of life)."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.broker.sessions.session import Session
from fanwire.protocol import Goodbye, Subscribe, decode_from_broker, encode
from fanwire.transport import FrameStream
from tests.peers.frames import BINARY, CLOSE, PING, frame
from tests.peers.healthy import Healthy
from tests.peers.raw import RawPeer, parse, request

_LATEST_S = 25 + 10 + 1 + 1  # ping interval, ping timeout, linger, and a second


@pytest.mark.parametrize("subscribed", [True, False])
async def test_vanished(subscribed: bool, autojump_clock: MockClock) -> None:
    """A client that neither reads nor answers is pinged, told why, closed with 4010, and its tasks are gone."""
    async with Broker(Config(listen=False)).serving() as broker:
        await wait_all_tasks_blocked()
        tasks = _tasks()
        peer = RawPeer(await broker.open_stream())
        await peer.say([request() + (frame(BINARY, encode(Subscribe(1, "t"))) if subscribed else b"")])

        await trio.sleep(_LATEST_S)

        assert broker.statistics().connections == broker.statistics().subscriptions == 0
        assert broker.statistics().closed_by_broker == {4010: 1}
        assert _tasks() == tasks
        await peer.listen()
        frames = parse(bytes(peer.heard)).frames
        assert [each.opcode for each in frames][-3:] == [PING, BINARY, CLOSE]
        assert [type(each) for each in decode_from_broker(frames[-2].payload)] == [Goodbye]
        assert parse(bytes(peer.heard)).close_code == 4010


async def test_memory_of_the_vanished(autojump_clock: MockClock) -> None:
    """The session itself is freed."""
    async with Broker(Config(listen=False)).serving() as broker:
        await RawPeer(await broker.open_stream()).say([request()])
        await wait_all_tasks_blocked()
        assert _belongings() == 2

        await trio.sleep(_LATEST_S)

        assert _belongings() == 0


async def test_vanished_with_unread_pongs(autojump_clock: MockClock) -> None:
    """A client that pings without end and reads none of the answers is no better off."""
    async with Broker(Config(listen=False)).serving() as broker, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        tasks = _tasks()
        peer = RawPeer(await broker.open_stream())
        nursery.start_soon(peer.say, [request(), *[frame(PING, b"x" * 125) * 100] * 100])

        await trio.sleep(2 * _LATEST_S)

        assert broker.statistics().connections == 0
        # 1008 where the pongs happened to stop the reading in the middle of a ping: then that is due first.
        assert broker.statistics().closed_by_broker in ({4010: 1}, {1008: 1})
        assert _tasks() == tasks


async def test_quiet_but_alive(autojump_clock: MockClock) -> None:
    """A client that only answers pings stays connected for as long as it likes."""
    async with Broker(Config(listen=False)).serving() as broker, trio.open_nursery() as nursery:
        quiet = Healthy(await broker.open_stream())
        await nursery.start(quiet.run, "t")

        await trio.sleep(3600)

        assert broker.publish("t", b"at last") == 1
        await wait_all_tasks_blocked()
        assert quiet.received == [b"at last"]
        nursery.cancel_scope.cancel()


async def test_a_thousand_vanish(autojump_clock: MockClock) -> None:
    """They are not all pinged at the same moment: the first ping comes at a random point of the interval."""
    async with Broker(Config(listen=False)).serving() as broker:
        for _ in range(1000):
            await RawPeer(await broker.open_stream()).say([request()])
        left = []

        for _ in range(5):
            await trio.sleep(_LATEST_S / 5)
            left.append(broker.statistics().connections)

        assert left[0] == 1000
        assert left[-1] == 0
        assert any(0 < each < 1000 for each in left)


def _belongings() -> int:
    """Sessions and their streams, in this process."""
    gc.collect()
    return sum(type(each) in (Session, FrameStream) for each in gc.get_objects())


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
