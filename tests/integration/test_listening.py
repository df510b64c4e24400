"""A broker's port is free again however it ends."""

import pytest
import trio

from fanwire.broker import Broker, Config


async def _is_closed(port: int | None) -> bool:
    assert port is not None
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", port)
    return True


async def test_a_block_that_ends_at_once_leaves_no_port_open() -> None:
    """The accept loop may not even have begun by then."""
    async with Broker(Config(port=0)).serving() as broker:
        port = broker.port

    assert await _is_closed(port)


async def test_a_cancelled_broker_leaves_no_port_open() -> None:
    """Cancelling the task that serves is as good as draining."""
    async with trio.open_nursery() as nursery:
        broker = await nursery.start(Broker(Config(port=0)).serve)
        port = broker.port
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await _is_closed(port)
