"""A broker and clients in one process, without a port: for your own tests.

Nothing here waits for a network, so tests run on trio's `trio.testing.MockClock` in no time::

    async def test_prices() -> None:
        async with broker_in_memory() as broker, client_of(broker) as client:
            async with client.subscribe("prices.>") as prices:
                await client.publish("prices.ABC", 12.5)
                assert (await anext(aiter(prices))).data == 12.5

With pytest and pytest-trio the same comes as the fixtures ``fanwire_broker`` and ``fanwire_client``; put
``pytest_plugins = ["fanwire.testing"]`` into your conftest.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Unpack

import attrs

from fanwire.broker import Broker, Config
from fanwire.client import Client, connect
from fanwire.client.config import Settings


@asynccontextmanager
async def broker_in_memory(config: Config | None = None) -> AsyncIterator[Broker]:
    """A running broker without a port.

    Args:
        config: Its settings; ``listen`` is turned off.

    Yields:
        The broker; `client_of` connects to it, and so does ``fanwire.connect(open_stream=broker.open_stream)``.
    """
    async with Broker(attrs.evolve(config or Config(), listen=False)).serving() as broker:
        yield broker


def client_of(broker: Broker, **settings: Unpack[Settings]) -> AbstractAsyncContextManager[Client]:
    """A client connected to ``broker`` in memory.

    Args:
        broker: Any running one, with or without a port.
        **settings: As for `fanwire.connect`.
    """
    settings.setdefault("open_stream", broker.open_stream)
    return connect("ws://in-memory/", **settings)


try:
    from pytest_trio import trio_fixture  # type: ignore[import-untyped]
except ImportError:  # the functions above need no pytest
    pass
else:

    @trio_fixture  # type: ignore[untyped-decorator]
    async def fanwire_broker() -> AsyncIterator[Broker]:
        """A broker in memory, for one test."""
        async with broker_in_memory() as broker:
            yield broker

    @trio_fixture  # type: ignore[untyped-decorator]
    async def fanwire_client(fanwire_broker: Broker) -> AsyncIterator[Client]:
        """A client of ``fanwire_broker``."""
        async with client_of(fanwire_broker) as client:
            yield client
