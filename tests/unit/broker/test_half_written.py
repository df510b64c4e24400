"""What becomes of a write under way when the rest of it is thrown away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.protocol.frames import frame_header
from fanwire.transport import FrameStream, memory_stream_pair
from tests.integration.raw import RawClient


def _as_it_is(stream: trio.abc.HalfCloseableStream) -> trio.abc.Stream:
    return stream


def _foreign(stream: trio.abc.HalfCloseableStream) -> trio.abc.Stream:
    """The same as a kind of stream that can only be awaited, like TLS."""
    return trio.StapledStream(stream, stream)


@pytest.mark.parametrize("kind", [_as_it_is, _foreign])
@pytest.mark.parametrize("sizes", [[50_000] * 4, [100] * 400])
async def test_a_write_under_way_ends_at_the_end_of_a_frame(
    kind: Callable[[trio.abc.HalfCloseableStream], trio.abc.Stream],
    sizes: list[int],
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    """Somebody waits for the stream to take all frames; they are dropped meanwhile; what goes out is whole frames."""
    ours, theirs = memory_stream_pair(1000)
    stream = FrameStream(kind(ours), client=False, max_message=1 << 20, on_messages=lambda messages: None)
    frames = [frame_header(size) + bytes([number % 256]) * size for number, size in enumerate(sizes)]
    stream.write_nowait(b"".join(frames))

    async def write_out() -> None:
        async with stream.sending():
            await stream.finish()

    nursery.start_soon(write_out)
    await wait_all_tasks_blocked()
    stream.keep_half_written()

    async def say_last() -> None:
        await stream.send_all(frame_header(3) + b"bye")
        await stream.aclose()

    nursery.start_soon(say_last)
    reader = RawClient(theirs)
    seen = []
    while frame := await reader.frame():
        seen.append(frame.payload)

    assert seen[-1] == b"bye"
    assert seen[:-1] == [frame[-size:] for frame, size in zip(frames, sizes, strict=True)][: len(seen) - 1]
    assert len(seen) - 1 < len(frames)
