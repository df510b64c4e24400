"""A subscriber that behaves, so that one sees whether others can harm it."""

from __future__ import annotations

import trio

from fanwire.protocol import Message, Subscribe, decode_from_broker, encode

from .frames import BINARY, PING, PONG, frame, read_frames
from .raw import RawPeer, request

_END_OF_HEAD = b"\r\n\r\n"


class Healthy:
    """Subscribed to one pattern; keeps the payloads that come, in order."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.received: list[bytes] = []
        self._peer = RawPeer(stream)
        self._unread = b""

    async def run(self, pattern: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Subscribe and read until cancelled. Being cut off is an error."""
        stream = self._peer.stream
        try:
            await stream.send_all(request() + frame(BINARY, encode(Subscribe(1, pattern))))
            await self._peer.hear_head()
            self._unread = bytes(self._peer.heard).partition(_END_OF_HEAD)[2]
            answered = await self._take()
            while True:
                if answered:
                    task_status.started()
                    answered = False
                data = await stream.receive_some(65536)
                assert data, "a healthy subscriber was cut off"
                self._unread += data
                answered = await self._take()
        finally:
            await trio.aclose_forcefully(stream)

    async def _take(self) -> bool:
        """Handle what is there; return whether the answer to SUBSCRIBE was in it."""
        frames, self._unread = read_frames(self._unread)
        answered = False
        for each in frames:
            if each.opcode == PING:
                await self._peer.stream.send_all(frame(PONG, each.payload))
                continue
            assert each.opcode == BINARY, f"a healthy subscriber was closed: {each}"
            for envelope in decode_from_broker(each.payload):
                if isinstance(envelope, Message):
                    self.received.append(envelope.payload)
                answered = answered or type(envelope).__name__ == "Ok"
        return answered
