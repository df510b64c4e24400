"""How the processes of a benchmark talk: one JSON object a line, over pipes."""

import json
from collections import deque
from typing import Any

import trio

Said = dict[str, Any]


class Hangup(Exception):
    """The other end has closed its side."""


class JsonLines:
    """Both directions of a process's standard streams, or of a worker's own."""

    def __init__(self, sending: trio.abc.SendStream, receiving: trio.abc.ReceiveStream) -> None:
        self._sending = sending
        self._receiving = receiving
        self._one_at_a_time = trio.Lock()
        self._rest = b""
        self._heard: deque[bytes] = deque()

    async def say(self, **said: Any) -> None:
        """Send one object. An other end that has gone is found out by whoever listens to it."""
        line = json.dumps(said).encode() + b"\n"
        try:
            async with self._one_at_a_time:
                await self._sending.send_all(line)
        except trio.BrokenResourceError:
            pass

    async def hear(self) -> Said:
        """The next object that comes. Being cancelled loses none.

        Raises:
            Hangup: there are no more.
        """
        while not self._heard:
            chunk = await self._receiving.receive_some()
            if not chunk:
                raise Hangup
            *lines, self._rest = (self._rest + bytes(chunk)).split(b"\n")
            self._heard.extend(lines)
        said: Said = json.loads(self._heard.popleft())
        return said
