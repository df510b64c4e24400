"""A broker's port is free again however it ends."""

import errno
import socket

import pytest
import trio

from fanwire.broker import Broker, Config
from fanwire.broker.network import listeners
from fanwire.broker.network.listeners import in_url
from fanwire.client import connect


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


with_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6")


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


@with_ipv6
@pytest.mark.parametrize("host", ["::", "*"])
async def test_two_colons_are_every_address_of_both_families(host: str) -> None:
    """On one port, also where any free one is taken; what the broker calls itself is an address that works."""
    async with Broker(Config(host=host, port=0, insecure=True)).serving() as broker:
        assert broker.urls == (f"ws://[::]:{broker.port}/",)
        for url in (f"ws://127.0.0.1:{broker.port}/", f"ws://[::1]:{broker.port}/", *broker.urls):
            async with connect(url, reconnect=False) as client:
                assert (await client.publish("t", 1)).subscribers == 0


@with_ipv6
async def test_an_address_of_ipv4_is_one_of_ipv4() -> None:
    """0.0.0.0 opens no address of IPv6."""
    async with Broker(Config(host="0.0.0.0", port=0, insecure=True)).serving() as broker:
        assert broker.port is not None
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("::1", broker.port)


async def test_a_free_port_is_free_for_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the port of the first address is taken for another one, a second attempt is made."""
    opened: list[int] = []
    real = trio.open_tcp_listeners

    async def open_tcp_listeners(port: int, *, host: str | None, backlog: int) -> list[trio.SocketListener]:
        opened.append(port)
        if len(opened) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        first, second = await real(port, host="127.0.0.1"), await real(port, host="127.0.0.2")
        return [*first, *second]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    both = await listeners._open("localhost", 0, 10)
    ports = [each.socket.getsockname()[1] for each in both]
    for each in both:
        each.socket.close()

    assert len(opened) == 4
    assert opened[0] == opened[2] == 0
    assert ports[0] == ports[1] == opened[3]


@pytest.mark.parametrize(
    ("host", "written"), [("::", "[::]"), ("*", "[::]"), ("fe80::1", "[fe80::1]"), ("0.0.0.0", "0.0.0.0"), ("h", "h")]
)
def test_hosts_in_urls(host: str, written: str) -> None:
    """Addresses of IPv6 stand in brackets."""
    assert in_url(host) == written
