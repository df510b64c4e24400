"""What a connection held is free when it has ended, without the garbage collector, which comes by rarely."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameProtocol

from fanwire.broker import Broker, Config
from fanwire.broker.outbox import Outbox
from fanwire.broker.session import Session
from fanwire.protocol import Subscribe, encode
from fanwire.protocol.frames import FrameSplitter, Opcode, masked_frame
from fanwire.transport import FrameStream
from tests.peers.raw import Exit, converse

HELD = (Session, Outbox, FrameStream, FrameSplitter, FrameProtocol)
KEY = b"\1\2\3\4"
SUBSCRIBE = masked_frame(encode(Subscribe(1, "a.b")), KEY)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """From a clean start the collector does nothing."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> list[object]:
    """Everything of connections that exists."""
    return [each for each in gc.get_objects() if isinstance(each, HELD)]


@pytest.mark.parametrize("leave", [Exit.LISTEN, Exit.HANG_UP])
@pytest.mark.parametrize(
    "last",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(masked_frame(b"", KEY, opcode=Opcode.CLOSE), id="a close frame"),
        pytest.param(masked_frame(b"\xc1", KEY), id="no msgpack"),
        pytest.param(b"\xff\xff", id="no frame"),
        pytest.param(SUBSCRIBE[:-3], id="half a frame"),
    ],
)
async def test_no_object_of_an_ended_connection_is_left(leave: Exit, last: bytes, autojump_clock: MockClock) -> None:
    """However a client goes, refused or by itself, nothing waits for the collector or the watchdog."""
    before = len(held())

    async with Broker(Config(listen=False)).serving() as broker:
        await converse(await broker.open_stream(), [SUBSCRIBE, last], leave=leave)
        await wait_all_tasks_blocked()

        assert not broker.statistics().connections
        assert len(held()) == before
