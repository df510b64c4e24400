"""Server-Sent Events by hand: the chunks of an answer taken apart, and the events in them (HTML, section 9.2)."""

from __future__ import annotations

import json
from collections import deque
from typing import Any, NamedTuple

from fanwire.broker import Broker

from .http_client import HttpClient, http


class Event(NamedTuple):
    """One of them."""

    kind: str
    data: dict[str, Any]
    id: str | None = None
    retry: int | None = None


class SseClient:
    """One stream."""

    def __init__(self, client: HttpClient) -> None:
        self.http = client
        self.headers: dict[str, str] = {}
        self.comments = 0
        self.over = False
        self._text = ""
        self._events: deque[Event] = deque()

    async def open(self, target: str, *headers: str) -> SseClient:
        """Ask for it; it must be granted."""
        await self.ask(target, *headers)
        await self.read_head()
        return self

    async def ask(self, target: str, *headers: str) -> None:
        """Ask for it."""
        await self.http.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())

    async def read_head(self) -> None:
        """The head of an answer that must be good."""
        answer = await self.http.answer(to_head=True)
        assert answer.status == 200, answer
        assert answer.headers["transfer-encoding"] == "chunked"
        self.headers = answer.headers

    async def next(self) -> Event:
        """The next event."""
        while not self._events:
            await self.read_chunk()
            assert self._events or not self.over, "the stream has ended"
        return self._events.popleft()

    async def expect(self, kind: str) -> Event:
        """The next event, which must be of that kind."""
        event = await self.next()
        assert event.kind == kind, event
        return event

    async def payloads(self, count: int) -> list[Any]:
        """Of the next events, all of them messages."""
        return [(await self.expect("message")).data["payload"] for _ in range(count)]

    async def read_chunk(self) -> None:
        """One chunk of the body; the last one is empty."""
        received = self.http.received
        while (end := received.find(b"\r\n")) < 0:
            await self.http._read()
        size = int(bytes(received[:end]), 16)
        while len(received) < end + size + 4:
            await self.http._read()
        self._take(bytes(received[end + 2 : end + 2 + size]).decode())
        del received[: end + size + 4]
        self.over = not size

    def _take(self, text: str) -> None:
        *blocks, self._text = (self._text + text).split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            self.comments += block.startswith(":")
            if fields:
                retry = int(fields["retry"]) if "retry" in fields else None
                self._events.append(Event(fields["event"], json.loads(fields["data"]), fields.get("id"), retry))

    async def ended(self) -> list[Event]:
        """Read to the end, in good order; the last events."""
        while not self.over:
            await self.read_chunk()
        assert await self.http.closed()
        return list(self._events)


async def streaming(broker: Broker, target: str, *headers: str) -> SseClient:
    """A stream of a broker's, over a connection in memory; it has begun."""
    return await SseClient(await http(broker)).open(target, *headers)
