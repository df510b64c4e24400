"""A process that plays slow subscribers: some never read, some read 1 kB a second.

Before they count as ready, each one's socket is filled, the kernel's buffers at both ends, with messages of a topic
that only they have, and which they then unsubscribe from. So from then on all that is published on the measured topic
waits in their queues at the broker, and their policy has to deal with it.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.bench import wire
from tests.bench.recording import ERROR, LOST, MESSAGE, Envelopes, value

POLICIES = ("disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate")
KINDS = ("frozen", "trickle")

_FLOOD = "bench.flood"

# Together more than the kernel's buffers of a connection take: on loopback 2.6 MB, at most 4 MB (tcp_wmem).
_FLOOD_MESSAGES = 100
_FLOOD_BYTES = 60_000

# A trickle: so many bytes each time, 1,000 a second.
_SIP_BYTES = 100
_SIP_EVERY_S = 0.1

_PATIENCE_S = 60.0
_LOOKING_S = 5.0


class Group(NamedTuple):
    """Slow readers of one sort."""

    on_slow: str
    kind: str
    """One of `KINDS`."""
    size: int
    """How many."""


class SlowReaders:
    """Handle of the process."""

    def __init__(self, pipe: Connection | None) -> None:
        self._pipe = pipe

    def struck(self, first: int, last: int) -> list[bool]:
        """Read the first one of each group to where its policy shows.

        Args:
            first: The first number that was published since they were ready.
            last: The last one.

        Returns:
            For each group, whether its policy did anything: the connection was closed, ERROR or LOST came, messages
            were replaced.
        """
        if self._pipe is None:
            return []
        self._pipe.send((first, last))
        answer: list[bool] = self._pipe.recv()
        return answer


@contextmanager
def slow_readers(address: tuple[str, int], topic: str, groups: Sequence[Group], queue: int) -> Iterator[SlowReaders]:
    """Slow readers of ``topic`` in a process of their own, filled. Nothing may be published on the topic meanwhile."""
    if not groups:
        yield SlowReaders(None)
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(address, topic, groups, queue, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_PATIENCE_S):
            raise SystemExit("error: the slow readers could not subscribe")
        try:
            ours.recv()
        except EOFError:
            raise SystemExit("error: the slow readers failed") from None
        yield SlowReaders(ours)
    finally:
        process.terminate()
        process.join()


class _Reader:
    """One slow reader."""

    def __init__(self, group: Group, connection: socket.socket) -> None:
        self.group = group
        self.connection = connection
        self.numbers: list[int] = []
        self.told: set[int] = set()
        """Which of ERROR and LOST came."""
        self.gone = False
        self._envelopes = Envelopes()

    def sip(self) -> None:
        """Read a little, if there is anything."""
        self.connection.settimeout(0)
        try:
            self._read(_SIP_BYTES)
        except BlockingIOError:
            pass

    def struck(self, first: int, last: int) -> bool:
        """Read on until it is clear whether its policy did anything, at most for some seconds."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        end = time.monotonic() + _LOOKING_S
        while not self._shows(first) and not self.gone and last not in self.numbers and time.monotonic() < end:
            self.connection.settimeout(max(0.01, end - time.monotonic()))
            try:
                self._read(256 * 1024)
            except TimeoutError:
                break
        return self._shows(first)

    def _shows(self, first: int) -> bool:
        if self.group.on_slow == "disconnect":
            return self.gone
        if self.group.on_slow == "conflate":
            return self.numbers != list(range(first, first + len(self.numbers)))
        return (ERROR if self.group.on_slow == "unsubscribe" else LOST) in self.told

    def _read(self, size: int) -> None:
        try:
            data = self.connection.recv(size)
        except ConnectionError:
            data = b""
        self.gone |= not data
        for _, _, envelope in self._envelopes.read(data):
            if envelope[0] == MESSAGE and any(envelope[5]):  # the flood's are all zeros
                self.numbers.append(value(envelope).number)
            self.told |= {ERROR, LOST} & {envelope[0]}


def _run(address: tuple[str, int], topic: str, groups: Sequence[Group], queue: int, pipe: Connection) -> None:
    first_ones, trickles = [], []
    for group in groups:
        connections = wire.connect(address, group.size, receive_buffer=4096)
        wire.subscribe_all(connections, topic, on_slow=group.on_slow, queue=queue)
        readers = [_Reader(group, connection) for connection in connections]
        first_ones.append(readers[0])
        trickles += readers if group.kind == "trickle" else []
        _fill(address, connections)
    pipe.send(None)
    due = time.monotonic()
    while not pipe.poll(max(0.0, due - time.monotonic())):
        for reader in trickles:
            if not reader.gone:
                reader.sip()
        due += _SIP_EVERY_S
    first, last = pipe.recv()
    pipe.send([reader.struck(first, last) for reader in first_ones])
    pipe.poll(None)  # stay connected until we are ended


def _fill(address: tuple[str, int], connections: Sequence[socket.socket]) -> None:
    route = wire.subscribe_all(connections, _FLOOD)
    [flooder] = wire.connect(address, 1)
    message = wire.frame(wire.publish(_FLOOD, bytes(_FLOOD_BYTES)))
    for _ in range(_FLOOD_MESSAGES):
        flooder.sendall(message)
    wire.part([flooder])
    for connection in connections:
        connection.sendall(wire.unsubscribe(route))
