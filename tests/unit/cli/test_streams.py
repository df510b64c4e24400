"""Standard input and output, over pipes of this process."""

import os
from collections.abc import Iterator

import pytest
import trio

from fanwire.client.cli.output import Output, OutputClosed
from fanwire.client.cli.stdin_lines import InputFailed, lines

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Both ends of a pipe: to read, to write. What a test has closed itself is passed over."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


async def _all_lines(descriptor: int, longest: int = 1000) -> list[bytes]:
    return [line async for line in lines(descriptor, longest=longest)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"\xff\x00\n", [b"\xff\x00"]),
    ],
)
async def test_lines(pipe: Pipe, written: bytes, expected: list[bytes]) -> None:
    """Lines come without their ends; the last one needs none."""
    os.write(pipe[1], written)
    os.close(pipe[1])

    assert await _all_lines(pipe[0]) == expected


async def test_a_line_is_bounded(pipe: Pipe) -> None:
    """A file without line ends does not fill the memory."""
    os.write(pipe[1], b"x" * 1001)

    with pytest.raises(InputFailed, match="more than 1000 bytes: use --file"):
        await _all_lines(pipe[0])


async def test_waiting_for_a_line_can_be_cancelled(pipe: Pipe) -> None:
    """Ctrl-C needs no line to come."""
    with trio.move_on_after(0) as scope:
        await _all_lines(pipe[0])
    os.close(pipe[1])  # lets the thread that was left behind end

    assert scope.cancelled_caught


async def test_output_is_out_when_write_returns(pipe: Pipe) -> None:
    """Nothing stays in a buffer; half a surrogate pair comes as an escape."""
    await Output(pipe[1]).write("grün \ud800\n")

    assert os.read(pipe[0], 100) == "grün \\ud800\n".encode()


async def test_a_full_pipe_does_not_stop_the_event_loop(pipe: Pipe) -> None:
    """More than a pipe holds is written while another task reads it."""
    text = "x" * 1_000_000
    read = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Output(pipe[1]).write, text)
        while len(read) < len(text):
            read += await trio.to_thread.run_sync(os.read, pipe[0], 65_536)

    assert read.decode() == text


async def test_a_non_blocking_pipe_is_written_whole(pipe: Pipe) -> None:
    """A terminal that somebody made non-blocking loses nothing."""
    os.set_blocking(pipe[1], False)
    text = "x" * 200_000
    read = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Output(pipe[1]).write, text)
        while len(read) < len(text):
            read += await trio.to_thread.run_sync(os.read, pipe[0], 65_536)

    assert read.decode() == text


async def test_nobody_reads_any_more(pipe: Pipe) -> None:
    """A closed pipe is told apart from all other errors."""
    os.close(pipe[0])

    with pytest.raises(OutputClosed):
        await Output(pipe[1]).write("x")
