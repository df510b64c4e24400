"""What a client says of its own accord while its program may not await soon: it goes out at once."""

from __future__ import annotations

import trio
import trio.testing

from fanwire.client.config import Options
from fanwire.client.exchange.outgoing import Outgoing
from fanwire.protocol import Backlog, ClientEnvelope, Ping, decode_from_client, encode
from fanwire.protocol.masking import mask_in_python
from fanwire.transport import FrameStream


def _said(data: bytes) -> list[object]:
    """The envelopes of some short masked frames (RFC 6455 section 5.2)."""
    envelopes: list[object] = []
    while data:
        size, key = data[1] & 0x7F, data[2:6]
        payload = bytes([byte ^ key[at % 4] for at, byte in enumerate(data[6 : 6 + size])])
        envelopes += decode_from_client(payload)
        data = data[6 + size :]
    return envelopes


async def test_a_blocking_program_is_heard_all_the_same() -> None:
    """Without a checkpoint the envelope is in the kernel; behind others, or without a connection, it waits its turn."""
    ours, theirs = trio.socket.socketpair()
    outgoing = Outgoing(Options())
    stream = FrameStream(
        trio.SocketStream(ours), client=True, max_message=1000, on_messages=lambda _: None, key=lambda: b"abcd"
    )
    news: list[ClientEnvelope] = [Backlog(0, 1, 0, 10, taken) for taken in (1, 2)]

    outgoing.add_control_at_once(encode(news[0]))  # nobody is there
    outgoing.begin(mask_in_python)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outgoing.write, stream)
        await trio.testing.wait_all_tasks_blocked()
        outgoing.add_control_at_once(encode(news[0]))
        assert _said(await theirs.recv(1000)) == [news[0]]

        outgoing.add_control(encode(Ping(1)))
        outgoing.add_control_at_once(encode(news[1]))
        await trio.testing.wait_all_tasks_blocked()
        assert _said(await theirs.recv(1000)) == [Ping(1), news[1]]
        nursery.cancel_scope.cancel()
    await stream.aclose()
    theirs.close()
