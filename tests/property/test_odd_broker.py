"""Whatever a broker says, wrong types, nil, negative, huge: the program gets a FanwireError, or nothing at all."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, wrap_server_stream

from fanwire.client import Client, FanwireError, LocalProtocolError, Message, connect
from fanwire.protocol import SUBPROTOCOL
from fanwire.protocol.codes import EnvelopeType as Type
from fanwire.transport import memory_stream_pair

ODD: list[Any] = [
    None, True, False, 0, 1, -1, -5, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), -float("inf"),
    "", "t", "w.x", "a..b", "x" * 300, "x" * 5000, "\x00", "$inbox.y", "a b", "*", b"", b"\xc1", b"x" * 50,
    [], [1], [[]], {}, {"a": 1}, {"headers": {"a": 1}}, {"offset": []},
]  # fmt: skip

GREETING: dict[str, Any] = {
    "session": "s", "server": "x", "version": 1, "max_message": 1 << 20, "max_batch": 65536, "ping_interval": 25,
    "inbox": "$inbox.x", "expires_in": 3600,
}  # fmt: skip
SUBSCRIBED: dict[str, Any] = {
    "route": 1, "offset": 3, "epoch": "e", "history": True, "recovered": True, "time": 5, "queue": 10, "max_rate": None,
    "heartbeat": 1.0, "on_slow": "disconnect",
}  # fmt: skip
RESULTS: dict[int, dict[str, Any]] = {
    Type.HELLO: {"expires_in": 60},
    Type.SUBSCRIBE: SUBSCRIBED,
    Type.PUBLISH: {"offset": 1, "subscribers": 1, "lagging": 0},
    Type.PRESENCE: {"members": [["t", "s", None, "c"], ["t", "s2", "n", "c2"]], "next": None, "grace": 2},
    Type.FETCH: {"epoch": "e", "offset": 2, "messages": [[1, 5, b"x", 0, {}], [2, 6, b"\x01", 1, {}]], "more": True},
    Type.PING: {},
    Type.UNSUBSCRIBE: {},
}
EVENT = {"event": "all", "patterns": ["t", "w.>"], "part": 0, "more": False}
TOLD: list[list[Any]] = [
    [Type.MESSAGE, 1, None, 4, 5, b"x", 0, {}],
    [Type.MESSAGE, 1, "w.x", 5, 5, msgpack.packb(EVENT), 1, {"headers": {"a": "b"}, "key": "k", "reply_to": "r"}],
    [Type.LOST, 1, 2, "evicted", "w.x", 6, 7],
    [Type.PRESENCE_EVENT, 1, "t", "join", "s3", None, "c3"],
    [Type.LAGGING, 1, 5, 10, 100],
    [Type.QUIET, 1, "t", 1000, 5],
    [Type.SNAPSHOT_END, 1, 1],
    [Type.GOODBYE, "slow_consumer", "too slow", 1, {"route": 1, "queued": 5, "limit": 10, "measure": "queue"}],
    [Type.ERROR, 0, "slow_consumer", "too slow", {"route": 1, "queued": 5, "oldest_ms": 5}],
    [Type.ERROR, 0, "forbidden", "no", {"about": "PUBLISH", "count": 5, "reply_to": "$inbox.x.y"}],
    [Type.ERROR, 0, "epoch_changed", "anew", {"epoch": "f"}],
    [Type.ERROR, 1, "forbidden", "no", {}],
    [Type.OK, 1, {}],
    [Type.WELCOME, GREETING],
    [99, 1],
]


def _changed(value: Any, draw: Random) -> Any:
    """With something in it replaced, or missing; or something else altogether."""
    if isinstance(value, dict) and value and draw.random() < 0.7:
        result = dict(value)
        for name in draw.sample(sorted(value), min(len(value), draw.randint(0, 2))):
            if draw.random() < 0.8:
                result[name] = _changed(value[name], draw)
            else:
                del result[name]
        return result
    if isinstance(value, list) and value and draw.random() < 0.7:
        return _with_one_changed(value, draw, 0)
    return draw.choice(ODD)


def _with_one_changed(of: list[Any], draw: Random, first: int) -> list[Any]:
    at = draw.randrange(first, len(of))
    return [*of[:at], _changed(of[at], draw), *of[at + 1 :]]


def _told(draw: Random) -> list[Any]:
    """An envelope, for one of the routes, mostly with something odd in it."""
    envelope = draw.choice(TOLD)
    if len(envelope) > 2 and envelope[1] == 1:
        envelope = [envelope[0], draw.randint(1, 7), *envelope[2:]]
    return _with_one_changed(envelope, draw, 1) if draw.random() < 0.7 else envelope


class _Peer:
    """A broker that says what is drawn at random."""

    def __init__(self, draw: Random) -> None:
        def some(value: Any) -> Any:
            return _changed(value, draw) if draw.random() < 0.4 else value

        self._greetings = iter([some(GREETING) for _ in range(3)])
        self._results = {
            kind: itertools.chain([some(of) for _ in range(4)], itertools.repeat(of)) for kind, of in RESULTS.items()
        }
        self._says = [_told(draw) for _ in range(draw.randint(0, 6))]
        self.nursery: trio.Nursery

    async def open_stream(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair(1 << 20)
        self.nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as reading:
            with contextlib.suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                request = await wrap_server_stream(reading, stream, receive_buffer_size=None)
                websocket = await request.accept(subprotocol=SUBPROTOCOL)
                await websocket.send_message(msgpack.packb([Type.WELCOME, next(self._greetings, GREETING)]))
                reading.start_soon(self._talk, websocket)
                routes = itertools.count(1)
                while True:
                    message = await websocket.get_message()
                    answers = b"".join(map(msgpack.packb, self._answers(message, routes)))
                    if answers:
                        await websocket.send_message(answers)
            reading.cancel_scope.cancel()

    async def _talk(self, websocket: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            for each in self._says:
                await trio.sleep(0.1)
                await websocket.send_message(msgpack.packb(each))
            await trio.sleep(4)
            await websocket.aclose(1001)

    def _answers(self, message: str | bytes, routes: Iterator[int]) -> Iterator[Any]:
        unpacker = msgpack.Unpacker()
        unpacker.feed(message)
        for envelope in unpacker:
            if envelope[1] and envelope[0] in self._results:
                result = next(self._results[envelope[0]])
                if isinstance(result, dict) and result.get("route") == 1:
                    result = {**result, "route": next(routes)}
                yield [Type.OK, envelope[1], result]


ATTRIBUTES = ("topic", "payload", "encoding", "offset", "time", "replayed", "retained", "key", "reply_to", "data")


def _look_at(message: object) -> None:
    """All that a program may ask of a message."""
    if isinstance(message, Message):
        for name in ATTRIBUTES:
            with contextlib.suppress(FanwireError):
                getattr(message, name)
        repr((message, [*message.headers.items()]))


async def _read(subscription: Any) -> None:
    async with subscription:
        async for each in subscription:
            _look_at(each)


async def _publish(client: Client) -> None:
    await client.publish("t", 1, msg_id="m")
    client.publish_nowait("t", 1)
    async with client.pipeline() as pipe:
        await pipe.publish("t", 1)


async def _fetch(client: Client) -> None:
    async for each in client.history("t", report_loss=True):
        _look_at(each)
    _look_at(await client.last("t"))
    await client.presence(">")
    await client.ping()


def _programs(client: Client) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: _read(client.subscribe("t", snapshot=True, heartbeat_s=1, report_loss=True)),
        lambda: _read(client.subscribe("w.>", replay={"last": 5}, on_slow_reconnect="resume")),
        lambda: _read(client.subscribe("v", group="g", on_full="conflate", buffer=2)),
        lambda: _read(client.subscribe("u.*", max_rate=5, on_slow_reconnect="conflate")),
        lambda: _read(client.serve("s")),
        lambda: _read(client.demand()),
        lambda: _read(client.watch_presence(">")),
        lambda: client.request("t", 1, timeout_s=2),
        lambda: _publish(client),
        lambda: _fetch(client),
    ]


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[Any]:
    for error in group.exceptions:
        yield from leaves(error) if isinstance(error, BaseExceptionGroup) else [error]


async def _try(program: Callable[[], Awaitable[Any]]) -> None:
    with trio.move_on_after(12):
        while True:
            try:
                await program()
            except* FanwireError:  # a pipeline's come in a group
                pass
            except* LocalProtocolError as group:  # the broker takes no message of this size, it says
                if {error.code for error in leaves(group)} != {"too_large"}:
                    raise
            await trio.sleep(3)


async def _live(peer: _Peer) -> None:
    async with trio.open_nursery() as peer.nursery:
        with contextlib.suppress(FanwireError):
            async with (
                connect("ws://peer/", open_stream=peer.open_stream, draw=lambda: 0.5, token=lambda: "t") as client,
                trio.open_nursery() as nursery,
            ):
                for program in _programs(client):
                    nursery.start_soon(_try, program)
        peer.nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(60))
def test_any_answer(caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """No other exception comes out, nothing waits for ever, and nothing is taken for a defect of the client's own."""
    caplog.set_level(logging.ERROR)

    trio.run(_live, _Peer(Random(seed)), clock=MockClock(autojump_threshold=0))

    assert caplog.records == []
