"""A client is called in its own thread, in a task of trio. Anything else is told what to do, and changes nothing."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanwire.client import Client, connect
from tests.unit.client.scripted_peer import ScriptedPeer, connected

Use = Callable[[], Awaitable[Any] | Any]


def _uses(client: Client, entered: dict[str, Any]) -> dict[str, Use]:
    """Every method that a program calls."""
    subscription, pipe, replies = entered["subscription"], entered["pipe"], client.request_many("t", 1)
    history, states = client.history("t"), client.states()
    return {
        "publish": partial(client.publish, "t", 1),
        "publish_nowait": partial(client.publish_nowait, "t", 1),
        "flush": client.flush,
        "pipeline": client.pipeline,
        "subscribe": partial(client.subscribe, "t"),
        "history": partial(client.history, "t"),
        "last": partial(client.last, "t"),
        "demand": client.demand,
        "presence": partial(client.presence, "t"),
        "watch_presence": partial(client.watch_presence, "t"),
        "request": partial(client.request, "t", 1),
        "request_many": partial(client.request_many, "t", 1),
        "serve": partial(client.serve, "t"),
        "ping": client.ping,
        "states": client.states,
        "entering a subscription": client.subscribe("u").__aenter__,
        "leaving a subscription": partial(subscription.__aexit__, None, None, None),
        "reading": subscription.__anext__,
        "reading a batch": partial(subscription.next_batch, 1),
        "changing": subscription.change,
        "complete": subscription.complete,
        "entering a pipeline": client.pipeline().__aenter__,
        "leaving a pipeline": partial(pipe.__aexit__, None, None, None),
        "publishing in a pipeline": partial(pipe.publish, "t", 1),
        "draining a pipeline": pipe.drain,
        "entering a request": replies.__aenter__,
        "a page of history": history.__anext__,
        "following states": states.__anext__,
    }


def _call(use: Use, said: list[object]) -> None:
    """As a thread does it: synchronously, or in a trio loop of its own."""
    try:
        result = use()
        said.append(trio.run(lambda: result) if isinstance(result, Awaitable) else result)
    except BaseException as error:
        said.append(error)


async def test_every_method_from_another_thread(peer: ScriptedPeer) -> None:
    """Each says `trio.from_thread.run`, sends nothing, and leaves the client as it was."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("t") as subscription, client.pipeline() as pipe:
            for name, use in _uses(client, {"subscription": subscription, "pipe": pipe}).items():
                said: list[object] = []
                thread = threading.Thread(target=_call, args=(use, said), name="stranger")
                thread.start()
                await trio.to_thread.run_sync(thread.join)

                assert isinstance(said[0], RuntimeError), (name, said)
                assert "trio.from_thread.run" in str(said[0]), (name, said)
                assert "stranger" in str(said[0]), (name, said)

            outgoing = client._outgoing
            assert (outgoing.accepted, len(client._requests), outgoing._control) == (0, 0, [])
            client.publish_nowait("t", "still works")
            await client.flush()


async def test_by_way_of_the_loop(peer: ScriptedPeer) -> None:
    """What the error recommends works."""
    async with connected(peer) as (client, _):
        await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(client.publish_nowait, "t", 1))
        await trio.to_thread.run_sync(lambda: trio.from_thread.run(client.flush))

        assert client._outgoing.written == 1


def test_under_asyncio() -> None:
    """The error says that trio is needed, and how anyio is told so."""

    async def main() -> None:
        async with connect():
            pass

    with pytest.raises(RuntimeError, match=r"runs on trio(.|\n)*backend='trio'"):
        asyncio.run(main())


def test_without_any_loop() -> None:
    """So it does for a coroutine that is driven by hand."""
    with pytest.raises(RuntimeError, match="runs on trio"):
        connect().__aenter__().send(None)


async def test_a_thread_that_leaves_the_client(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Closing is for the client's own thread, too."""
    connecting = connect("ws://peer/", open_stream=peer.open_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        async with connecting:
            said: list[object] = []
            thread = threading.Thread(target=_call, args=(partial(connecting.__aexit__, None, None, None), said))
            thread.start()
            thread.join()

            assert "trio.from_thread.run" in str(said[0])
