"""HTTP by hand, so that a test sees each byte: requests as they are written here, answers taken apart."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import trio

from fanwire.broker import Broker

from . import raw


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error, which says something to people, too."""
        error = self.json["error"]
        assert error["message"]
        code: str = error["code"]
        return code


class HttpClient:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self.stream.send_all(data)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            await self._read()
        lines = bytes(self.received[:end]).decode("ascii").split("\r\n")
        del self.received[: end + 4]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = b"" if to_head else await self._body(int(headers["content-length"]))
        return Answer(int(lines[0].split(" ")[1]), headers, body)

    async def _body(self, length: int) -> bytes:
        while len(self.received) < length:
            await self._read()
        body = bytes(self.received[:length])
        del self.received[:length]
        return body

    async def _read(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, f"the stream ended after {bytes(self.received)!r}"
        self.received += data

    async def ask(self, method: str, target: str, *headers: str, body: bytes | None = None) -> Answer:
        """Send a request, and read its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        return await self.answer(to_head=method == "HEAD")

    async def get(self, target: str, *headers: str) -> Answer:
        """GET it."""
        return await self.ask("GET", target, *headers)

    async def closed(self) -> bool:
        """Wait for the end of the stream; whether nothing came before it."""
        data = await self.stream.receive_some(65536)
        return not data and not self.received


def serving(**settings: Any) -> AbstractAsyncContextManager[Broker]:
    """As `raw.serving`; those who do not hang up are not waited for."""
    return raw.serving(**{"linger_s": 0.05, **settings})


async def http(broker: Broker) -> HttpClient:
    """A connection to a broker, in memory."""
    return HttpClient(await broker.open_stream())
