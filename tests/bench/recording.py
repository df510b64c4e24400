"""What subscribers receive, kept with the time it came, and taken apart afterwards: reading must cost little."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from tests.bench import payload

MESSAGE, LOST, ERROR, GOODBYE = 19, 20, 18, 22

_READ = 256 * 1024
_CLOSE, _BINARY = 8, 2


class Seen(NamedTuple):
    """One envelope."""

    time_ns: int
    """When the last byte of its frame had come: before that, no client has it. time.monotonic_ns."""
    end: int
    """Bytes of the connection up to its end, from where the recording began."""
    envelope: list[Any]


class Value(NamedTuple):
    """What a measured message carries; see `payload`."""

    time_ns: int
    number: int


def value(envelope: list[Any]) -> Value:
    """Of a MESSAGE."""
    return Value(*payload.FIELDS.unpack_from(envelope[5], len(payload.MAGIC)))


class Envelopes:
    """Takes one connection's bytes apart, wherever they were cut. They must begin with a frame."""

    def __init__(self) -> None:
        self.closed = False
        """Whether a close frame has come."""
        self._rest = bytearray()
        self._taken = 0

    def read(self, data: bytes, time_ns: int = 0) -> list[Seen]:
        """Take in what was received; return the envelopes of the frames that are whole now."""
        self._rest += data
        seen: list[Seen] = []
        while (head := _head(self._rest)) is not None:
            start, end = head
            if len(self._rest) < end:
                break
            kind = self._rest[0] & 0x0F
            self.closed |= kind == _CLOSE
            if kind == _BINARY:
                seen += self._unpack(bytes(self._rest[start:end]), self._taken + start, time_ns)
            del self._rest[:end]
            self._taken += end
        return seen

    def _unpack(self, body: bytes, at: int, time_ns: int) -> list[Seen]:
        unpacker = msgpack.Unpacker(max_buffer_size=len(body) + 1, read_size=len(body) + 1)
        unpacker.feed(body)
        return [Seen(time_ns, at + unpacker.tell(), envelope) for envelope in unpacker]


def _head(data: bytearray) -> tuple[int, int] | None:
    """Where the first frame's body begins and ends; None: too little has come to say."""
    if len(data) < 2:
        return None
    size = data[1]  # a broker does not mask
    if size < 126:
        return 2, 2 + size
    if size == 126:
        return (4, 4 + struct.unpack_from("!H", data, 2)[0]) if len(data) >= 4 else None
    return (10, 10 + struct.unpack_from("!Q", data, 2)[0]) if len(data) >= 10 else None


class Recorder:
    """Reads several connections and keeps what comes. Begin while nothing is on its way to them."""

    def __init__(self, connections: Sequence[socket.socket]) -> None:
        self._chunks: dict[int, list[tuple[int, bytes]]] = {}
        self._open = {connection.fileno(): connection for connection in connections}
        self._poller = select.poll()
        for number, connection in self._open.items():
            connection.setblocking(False)
            self._poller.register(number, select.POLLIN)
            self._chunks[number] = []

    def read(self, seconds: float) -> None:
        """Read for so long. A connection that the broker closes is read no more."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self._poller.poll(left * 1000):
                self._take(number)

    def read_until_quiet(self, quiet_s: float) -> None:
        """Read until nothing has come for so long."""
        while self._open and (ready := self._poller.poll(quiet_s * 1000)):
            for number, _ in ready:
                self._take(number)

    def _take(self, number: int) -> None:
        try:
            data = self._open[number].recv(_READ)
        except ConnectionError:
            data = b""
        if data:
            self._chunks[number].append((time.monotonic_ns(), data))
        else:
            self._poller.unregister(self._open.pop(number))

    def is_open(self, connection: socket.socket) -> bool:
        """Whether the broker has not closed it, as far as was read."""
        return connection.fileno() in self._open

    def seen(self, connection: socket.socket) -> list[Seen]:
        """All that came on one of the connections."""
        envelopes = Envelopes()
        return [each for at, data in self._chunks[connection.fileno()] for each in envelopes.read(data, at)]
