"""Names of requests and of the other end, for the log."""

from __future__ import annotations

import socket

import pytest
import trio

from fanwire.broker.http.request_id import request_id
from fanwire.broker.network.remote import remote_of
from fanwire.transport import memory_stream_pair


@pytest.mark.parametrize("given", ["4bf92f3577b34da6a3ce929d0e0e4736", "a", "A.b_c-9", "x" * 64])
def test_a_sane_name_is_taken(given: str) -> None:
    """So that a request can be followed through all systems that it passes."""
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\r\nSet-Cookie: x", "é", "<script>", "a\n", "٣"])
def test_another_one_is_made_up(given: str | None) -> None:
    """It is repeated in a header and in the log: nothing else may be smuggled in."""
    made = request_id(given)

    assert made != given
    assert len(made) == 16
    assert request_id(given) != made


async def test_where_a_connection_comes_from() -> None:
    """Address and port; nothing for one in memory."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as client:
        server = await listeners[0].accept()
        host, port = client.socket.getsockname()

        assert remote_of(server) == f"{host}:{port}"
        await server.aclose()
        assert remote_of(server) == ""
    await listeners[0].aclose()
    assert remote_of(memory_stream_pair()[0]) == ""
    ours, theirs = socket.socketpair()
    with theirs:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            assert remote_of(stream) == "unix"
