"""The accept loop, with a listener that fails."""

from __future__ import annotations

import errno
import os
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker import Config
from fanwire.broker.http import HttpService
from fanwire.broker.limits.addresses import Address
from fanwire.broker.network.accept import accept_connections
from fanwire.broker.sessions.hub import Hub
from fanwire.transport import memory_stream_pair

DOOR = Hub(Config(), HttpService).door


class Listener:
    """Fails as told, then gives streams, then waits for ever."""

    def __init__(self, *outcomes: OSError | trio.abc.Stream) -> None:
        self.outcomes = list(outcomes)
        self.accepted_at: list[float] = []

    async def accept(self) -> trio.abc.Stream:
        """One outcome."""
        if not self.outcomes:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        self.accepted_at.append(trio.current_time())
        return outcome


def _failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_without_descriptors_accepting_pauses_and_goes_on(
    number: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """It neither spins nor gives up: each time a pause, and then who waited is served."""
    stream, _ = memory_stream_pair()
    listener = Listener(_failure(number), _failure(number), stream)
    handled: list[object] = []

    async def handle(stream: trio.SocketStream, address: Address | None) -> None:
        handled.append(stream)

    began = trio.current_time()
    nursery.start_soon(accept_connections, cast("trio.SocketListener", listener), nursery, handle, DOOR)
    await trio.sleep(1)

    assert handled == [stream]
    assert [round(at - began, 3) for at in listener.accepted_at] == [0.3]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET),
    ],
    ids=errno.errorcode.get,
)
async def test_a_connection_that_is_gone_before_it_is_accepted_is_passed_over(
    number: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The client or its network is at fault, not the listener: the next client is served at once."""
    stream, _ = memory_stream_pair()
    listener = Listener(_failure(number), _failure(number), stream)
    handled: list[object] = []

    async def handle(stream: trio.SocketStream, address: Address | None) -> None:
        handled.append(stream)

    began = trio.current_time()
    nursery.start_soon(accept_connections, cast("trio.SocketListener", listener), nursery, handle, DOOR)
    await trio.sleep(1)

    assert handled == [stream]
    assert listener.accepted_at == [began]
    nursery.cancel_scope.cancel()


async def test_an_unknown_failure_of_accept_neither_spins_nor_ends_the_broker(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Accepting pauses, as it does without descriptors."""
    stream, _ = memory_stream_pair()
    listener = Listener(_failure(errno.ENOTEMPTY), stream)
    handled: list[object] = []

    async def handle(stream: trio.SocketStream, address: Address | None) -> None:
        handled.append(stream)

    began = trio.current_time()
    nursery.start_soon(accept_connections, cast("trio.SocketListener", listener), nursery, handle, DOOR)
    await trio.sleep(1)

    assert handled == [stream]
    assert [round(at - began, 3) for at in listener.accepted_at] == [0.1]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK], ids=errno.errorcode.get)
async def test_a_broken_listener_is_not_hidden(number: int, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A listener that is broken is a fault that somebody must see."""

    async def handle(stream: trio.SocketStream, address: Address | None) -> None:
        raise AssertionError

    listener = cast("trio.SocketListener", Listener(_failure(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        await accept_connections(listener, nursery, handle, DOOR)
