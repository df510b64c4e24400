"""A batch of publishes that was written as a whole is never sent again; one that was not is, on the next connection."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import ConnectionLost
from fanwire.client.config import Options
from fanwire.client.exchange.outgoing import Outgoing
from fanwire.protocol import encode
from fanwire.protocol.envelopes import Publish
from fanwire.protocol.masking import mask_in_python
from fanwire.transport import FrameStream, memory_stream_pair

ONE = encode(Publish(0, "t", bytes(500)))


def _stream(size: int) -> tuple[FrameStream, trio.abc.Stream]:
    """A stream of a client, after its handshake, of which ``size`` bytes lie in between."""
    ours, theirs = memory_stream_pair(size)
    stream = FrameStream(theirs, client=True, max_message=1000, on_messages=lambda messages: None)
    return stream, ours


async def _give_up(outgoing: Outgoing, stream: FrameStream) -> None:
    """As much is written as goes; then the writer is cancelled."""
    outgoing.begin(mask_in_python)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.write, stream)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_all_was_written(autojump_clock: MockClock) -> None:
    """It counts as sent, though the writer was cancelled in the same moment."""
    outgoing = Outgoing(Options())
    outgoing.add(ONE)
    stream, _ = _stream(10_000)
    await _give_up(outgoing, stream)
    outgoing.lost(ConnectionLost("gone"))

    assert (outgoing.written, outgoing.waiting_bytes) == (1, 0)


async def test_a_part_was_written(autojump_clock: MockClock) -> None:
    """The broker cannot have seen any of it: it waits for the next connection, once."""
    outgoing = Outgoing(Options())
    outgoing.add(ONE)
    stream, _ = _stream(100)
    await _give_up(outgoing, stream)
    outgoing.lost(ConnectionLost("gone"))

    assert (outgoing.written, outgoing.waiting_bytes) == (0, len(ONE))


async def test_somebody_else_has_written_the_rest(autojump_clock: MockClock) -> None:
    """The close frame went behind it, and pushed it out: it was sent."""
    outgoing = Outgoing(Options())
    outgoing.add(ONE)
    stream, peer = _stream(100)
    await _give_up(outgoing, stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"\x88\x80\0\0\0\0")
        for _ in range(10):
            await peer.receive_some(100)
            await wait_all_tasks_blocked()
            if stream.close_sent and not stream.left:
                break
    outgoing.lost(ConnectionLost("gone"))

    assert (outgoing.written, outgoing.waiting_bytes) == (1, 0)


async def test_only_the_rest_of_somebody_elses_frame_is_left(autojump_clock: MockClock) -> None:
    """What is left over is not of the batch: that was sent."""
    outgoing = Outgoing(Options())
    outgoing.add(ONE)
    stream, peer = _stream(100)
    await _give_up(outgoing, stream)
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"\x8a\xfd" + bytes(129))
            read = 0
            while read < len(ONE) + 8:
                read += len(await peer.receive_some(min(50, len(ONE) + 8 - read)))
            await trio.sleep_forever()
    assert stream.left
    outgoing.lost(ConnectionLost("gone"))

    assert (outgoing.written, outgoing.waiting_bytes) == (1, 0)


@pytest.mark.parametrize("closed", ["by us", "by the peer"])
async def test_nothing_was_written(autojump_clock: MockClock, closed: str) -> None:
    """A stream that is broken takes nothing: the batch is the next one again, in its order."""
    outgoing = Outgoing(Options())
    outgoing.add(ONE)
    stream, peer = _stream(100)
    await trio.aclose_forcefully(stream if closed == "by us" else peer)
    await _give_up(outgoing, stream)
    outgoing.add(ONE)
    outgoing.lost(ConnectionLost("gone"))

    assert (outgoing.accepted, outgoing.written, outgoing.waiting_bytes) == (2, 0, 2 * len(ONE))
