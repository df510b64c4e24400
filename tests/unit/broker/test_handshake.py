"""The request head is read to its limit and not a byte further."""

import pytest

from fanwire.broker.network.handshake import MAX_HEAD, Opening, Refused, read_opening
from fanwire.transport import memory_stream_pair

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nX-Filler: "
)


def _head_of(size: int) -> bytes:
    return _REQUEST + b"x" * (size - len(_REQUEST) - 4) + b"\r\n\r\n"


async def test_a_head_as_long_as_the_limit_is_taken() -> None:
    """What follows it is kept, or left in the stream, for later."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(_head_of(MAX_HEAD) + b"frame")

    opening = await read_opening(ours, "/")

    assert isinstance(opening, Opening)
    assert opening.rest + await ours.receive_some() == b"frame"


@pytest.mark.parametrize("more", [1, 4000], ids=["by a byte", "by nearly a read"])
async def test_a_longer_one_is_refused_also_when_its_end_came_with_the_last_read(more: int) -> None:
    """The end is in sight, and does not count."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(_head_of(MAX_HEAD + more))

    with pytest.raises(Refused, match="431"):
        await read_opening(ours, "/")
