"""A process that connects as often as it is told, as hostile and unauthenticated clients do, and counts what they get.

It must cost little: bytes are made once, one `epoll` serves all sockets, and only the status or the close is looked at.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import itertools
import json
import multiprocessing
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import attrs

from tests.bench.program import cpu_s
from tests.peers.frames import BINARY, CONTINUATION, PING, frame
from tests.peers.raw import request

# Longer than any deadline of the broker's for who says nothing.
_GIVE_UP_S = 12.0

_RESET = struct.pack("ii", 1, 0)


@attrs.frozen
class Attack:
    """What one kind of them says."""

    name: str
    first: bytes = b""
    """At once."""
    then: bytes = b""
    """After the answer to the handshake."""
    reset: bool = False
    """Whether it leaves with a RST as soon as it has said all."""


def _guess(algorithm: str, signature: int) -> str:
    """A JWT whose signature is a guess; whoever must say no to it has to verify it first."""
    parts = ({"alg": algorithm, "typ": "JWT"}, {"sub": "eve", "exp": 4_000_000_000})
    pieces = [json.dumps(part).encode() for part in parts] + [os.urandom(signature)]
    return ".".join(base64.urlsafe_b64encode(piece).rstrip(b"=").decode() for piece in pieces)


def _hello(token: str) -> bytes:
    # HELLO, request 1, {"token": …}: the token has less than 256 bytes.
    text = token.encode()
    return frame(BINARY, b"\x93\x01\x01\x81\xa5token\xd9" + bytes((len(text),)) + text)


def attacks() -> tuple[Attack, ...]:
    """All kinds. They take turns."""
    es256, static = _guess("ES256", 64), base64.urlsafe_b64encode(os.urandom(32)).decode()
    none = _guess("none", 0)
    fragments = frame(BINARY, b"x", fin=False) + frame(CONTINUATION, fin=False) * 5000
    return (
        Attack("silence"),
        Attack("half a head", request()[:60]),
        Attack("garbage", bytes(range(256)) * 4),
        Attack("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        Attack("not ASCII", request("X-Fé: 1".encode())),
        Attack("head without end", b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 20_000),
        Attack("ten thousand headers", b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 10_000),
        Attack("connect and reset", reset=True),
        Attack("request and reset", request(), reset=True),
        Attack("no token", request()),
        Attack("guessed JWT in a header", request(f"Authorization: Bearer {es256}".encode())),
        Attack("guessed token in a header", request(f"Authorization: Bearer {static}".encode())),
        Attack("guessed token in the query", request(line=f"GET /?token={static} HTTP/1.1".encode())),
        Attack("alg none in HELLO", request(), _hello(none)),
        Attack("guessed JWT in HELLO", request(), _hello(es256)),
        Attack("guessed token in HELLO", request(), _hello(static)),
        Attack("other site's page", request(b"Origin: https://evil.example")),
        Attack("msgpack bomb", request(), frame(BINARY, b"\xdd\xff\xff\xff\xff" + b"\x91" * 1000)),
        Attack("fragments without end", request(), fragments),
        Attack("pings", request(), frame(PING, b"x" * 125) * 1000),
        Attack("oversize twice", request(), frame(BINARY, announce=2**30) * 2),
        Attack("HTTP", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Attack("HTTP guess", f"GET /v1/stats?token={static} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    )


class Tally(NamedTuple):
    """What came of them."""

    connects: int
    """Begun, in all."""
    seconds: float
    outcomes: dict[str, dict[str, int]]
    """By kind: how each ended, counted. "400" is a status, "close 1002" a close code."""
    slowest_connect_ms: float
    cpu_s: float


class Attackers:
    """Handle of the process."""

    def __init__(self, results: Connection) -> None:
        self._results = results

    def wait(self) -> Tally:
        """Until the last of them has gone."""
        return Tally(*self._results.recv())


@contextlib.contextmanager
def attackers(address: tuple[str, int], rate: float, seconds: float, addresses: int = 1) -> Iterator[Attackers]:
    """``rate`` connects a second for so many seconds, from a process of their own and so many addresses of 127.1/16."""
    context = multiprocessing.get_context("spawn")
    results, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(address, rate, seconds, addresses, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        results.recv()
        yield Attackers(results)
    finally:
        process.terminate()
        process.join()


def _run(address: tuple[str, int], rate: float, seconds: float, addresses: int, results: Connection) -> None:
    storm = _Storm(address, rate, addresses)
    results.send(None)
    storm.run(seconds)
    results.send((storm.begun, seconds, storm.outcomes, storm.slowest_ms, cpu_s(os.getpid())))


@attrs.define
class _Attacker:
    """One connection."""

    attack: Attack
    connection: socket.socket
    began: float
    rest: bytes
    """What is still to be said."""
    connected: bool = False
    opened: bool = False
    """Whether the handshake has been answered."""
    received: bytes = b""


class _Storm:
    def __init__(self, address: tuple[str, int], rate: float, addresses: int) -> None:
        self.begun = 0
        self.slowest_ms = 0.0
        self.outcomes: dict[str, dict[str, int]] = {}
        self._address = address
        self._rate = rate
        self._addresses = addresses
        self._attacks = attacks()
        self._poll = select.epoll()
        self._all: collections.OrderedDict[int, _Attacker] = collections.OrderedDict()  # the oldest first

    def run(self, seconds: float) -> None:
        begin = time.monotonic()
        while True:
            now = time.monotonic()
            while now < begin + seconds and begin + self.begun / self._rate <= now:
                self._begin(now)
            if now >= begin + seconds and not self._all:
                return
            for number, event in self._poll.poll(1 / self._rate):
                self._serve(self._all[number], event)
            self._give_up(time.monotonic())

    def _begin(self, now: float) -> None:
        attack = self._attacks[self.begun % len(self._attacks)]
        self.begun += 1
        connection = socket.socket()
        connection.setblocking(False)
        source = self.begun // len(self._attacks) % self._addresses  # each of them brings all kinds
        connection.bind((f"127.1.{source >> 8 & 255}.{source & 255}", 0))
        connection.connect_ex(self._address)
        self._all[connection.fileno()] = _Attacker(attack, connection, now, attack.first)
        self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _serve(self, attacker: _Attacker, event: int) -> None:
        try:
            if event & select.EPOLLOUT:
                self._write(attacker)
            if event & ~select.EPOLLOUT and attacker.connection.fileno() >= 0:  # it may have left
                self._read(attacker)
        except OSError as error:
            self._end(attacker, _outcome(attacker) or type(error).__name__)

    def _write(self, attacker: _Attacker) -> None:
        if not attacker.connected:
            attacker.connected = True
            attacker.connection.getpeername()  # raises if nobody was there
            self.slowest_ms = max(self.slowest_ms, (time.monotonic() - attacker.began) * 1e3)
        if attacker.rest:
            attacker.rest = attacker.rest[attacker.connection.send(attacker.rest) :]
        if attacker.rest:
            return
        if attacker.attack.reset:
            attacker.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._end(attacker, "reset by itself")
        else:
            self._poll.modify(attacker.connection.fileno(), select.EPOLLIN)

    def _read(self, attacker: _Attacker) -> None:
        data = attacker.connection.recv(65536)
        attacker.received += data[:2000]
        if not data:
            self._end(attacker, _outcome(attacker) or "closed")
        elif attacker.attack.then and not attacker.opened and b"\r\n\r\n" in attacker.received:
            attacker.opened = True
            attacker.rest = attacker.attack.then
            self._poll.modify(attacker.connection.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _give_up(self, now: float) -> None:
        """Leave when nobody has ended it for so long."""
        for attacker in list(itertools.takewhile(lambda each: each.began < now - _GIVE_UP_S, self._all.values())):
            self._end(attacker, "held")

    def _end(self, attacker: _Attacker, outcome: str) -> None:
        del self._all[attacker.connection.fileno()]
        attacker.connection.close()
        counts = self.outcomes.setdefault(attacker.attack.name, {})
        counts[outcome] = counts.get(outcome, 0) + 1


def _outcome(attacker: _Attacker) -> str | None:
    """The last that the broker said: a close code, or a status other than 101."""
    received = attacker.received
    status = received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else None
    if status != "101":
        return status
    # A close frame is the last that comes: two bytes of header, and at most 125 of code and reason.
    at = received.rfind(b"\x88", len(received) - 127 if len(received) > 127 else 0)
    return f"close {int.from_bytes(received[at + 2 : at + 4], 'big')}" if at > 0 else None
