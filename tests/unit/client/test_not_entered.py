"""What is used without `async with` says so at once, instead of waiting for messages that never come."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanwire.client import Client, connect
from tests.unit.client.scripted_peer import ScriptedPeer, connected

WAYS: dict[str, Callable[[Client], AsyncIterable[Any]]] = {
    "subscribe": lambda client: client.subscribe("t"),
    "subscribe in a group": lambda client: client.subscribe("t", group="g"),
    "batches": lambda client: client.subscribe("t").batches(),
    "serve": lambda client: client.serve("t"),
    "demand": lambda client: client.demand("t"),
    "watch_presence": lambda client: client.watch_presence("t"),
    "request_many": lambda client: client.request_many("t", 1),
}


@pytest.mark.parametrize("way", WAYS)
async def test_iterating(peer: ScriptedPeer, autojump_clock: MockClock, way: str) -> None:
    """Iterating over what was not entered is a RuntimeError that names the remedy."""
    async with connected(peer) as (client, _):
        with pytest.raises(RuntimeError, match="async with"):
            await anext(aiter(WAYS[way](client)))


@pytest.mark.parametrize("use", ["complete", "change"])
async def test_a_subscription(peer: ScriptedPeer, autojump_clock: MockClock, use: str) -> None:
    """So are its methods."""
    async with connected(peer) as (client, _):
        with pytest.raises(RuntimeError, match="async with"):
            await getattr(client.subscribe("t"), use)()


async def test_a_pipeline(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Nobody would wait for the answers to a publish before the block, or behind it."""
    async with connected(peer) as (client, _):
        pipe = client.pipeline()
        with pytest.raises(RuntimeError, match="async with"):
            await pipe.publish("t", 1)
        async with pipe:
            pass
        with pytest.raises(RuntimeError, match="async with"):
            await pipe.publish("t", 1)


async def test_a_connection(peer: ScriptedPeer) -> None:
    """`connect` gives no client before it is entered, whatever is done with it."""
    uses: list[Callable[[Any], Awaitable[Any] | None]] = [
        lambda client: client.publish("t", 1),
        lambda client: client.subscribe("t"),
        lambda client: client.__await__(),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="async with"):
            use(connect("ws://peer/", open_stream=peer.open_stream))
    assert not hasattr(connect(), "__iter__")


async def test_a_connection_is_entered_once(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A second time is told as such."""
    connecting = connect("ws://peer/", open_stream=peer.open_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        async with connecting:
            pass
    with pytest.raises(RuntimeError, match="once"):
        await connecting.__aenter__()
