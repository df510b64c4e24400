"""wss:// over a real socket."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trustme

from fanwire import Broker, ConnectionFailed, connect
from fanwire.testing import broker_in_memory


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of the test's own."""
    return trustme.CA()


def _pass_on(broker: Broker) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """Serve each TLS connection by joining it with the broker's in-memory stream."""

    async def serve(outside: trio.abc.Stream) -> None:
        inside = await broker.open_stream()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, outside, inside, nursery.cancel_scope)
                nursery.start_soon(_copy, inside, outside, nursery.cancel_scope)
        finally:
            await trio.aclose_forcefully(inside)
            await trio.aclose_forcefully(outside)

    return serve


async def _copy(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    both.cancel()


@pytest.fixture
async def port(authority: trustme.CA, nursery: trio.Nursery) -> AsyncIterator[int]:
    """Where a broker listens with a certificate of the authority for "localhost"."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with broker_in_memory() as broker:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        await nursery.start(trio.serve_listeners, _pass_on(broker), listeners)
        transport = listeners[0].transport_listener
        assert isinstance(transport, trio.SocketListener)
        yield transport.socket.getsockname()[1]


async def test_publish_and_subscribe(authority: trustme.CA, port: int) -> None:
    """With the authority's certificate all works as without TLS, large messages included."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        connect(f"wss://localhost:{port}/", ssl_context=context) as client,
        client.subscribe("t") as subscription,
    ):
        for size in (1, 100_000, 1_000_000):
            client.publish_nowait("t", b"x" * size, raw=True)
            assert len((await anext(subscription)).payload) == size


async def test_an_unknown_authority(port: int) -> None:
    """A certificate that nobody vouches for is no connection, and the error says so."""
    with pytest.raises(ConnectionFailed, match="certificate is not accepted: unable to get local issuer"):
        async with connect(f"wss://localhost:{port}/"):
            pytest.fail("connected")


async def test_plain_text_to_a_tls_port(port: int) -> None:
    """``ws://`` where ``wss://`` is spoken fails with a message, not with a timeout."""
    with pytest.raises(ConnectionFailed, match="not as a WebSocket server does"):
        async with connect(f"ws://localhost:{port}/"):
            pytest.fail("connected")
