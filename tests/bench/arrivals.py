"""Messages of a `feed` at a subscriber: which update of which symbol, when it was published, taken in and received."""

from __future__ import annotations

import itertools
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.bench.recording import LOST, MESSAGE, Recorder, value


class Arrival(NamedTuple):
    """One message. All times are time.monotonic_ns."""

    topic: str
    number: int
    published_ns: int
    accepted_ns: int
    """When the broker took it in: its own stamp."""
    arrived_ns: int


class Arrivals(NamedTuple):
    """All of one connection."""

    messages: list[Arrival]
    lost: int
    """How often a loss was told, the end of the connection included."""


def arrivals(recorder: Recorder, connection: socket.socket, topics: Mapping[int, str]) -> Arrivals:
    """Take apart what was recorded. ``topics``, by route: of messages that don't say theirs."""
    wall = time.time_ns() - time.monotonic_ns()  # the broker stamps with the wall clock
    messages, lost = [], 0
    for arrived, _, envelope in recorder.seen(connection):
        if envelope[0] == MESSAGE:
            published, number = value(envelope)
            topic = envelope[2] or topics[envelope[1]]
            messages.append(Arrival(topic, number, published, envelope[4] * 1000 - wall, arrived))
        lost += envelope[0] == LOST
    return Arrivals(messages, lost + (not recorder.is_open(connection)))


def gaps_ms(messages: Sequence[Arrival]) -> list[float]:
    """Between two messages of one symbol."""
    return [(after.arrived_ns - before.arrived_ns) / 1e6 for before, after in _successive(messages)]


def steps(messages: Sequence[Arrival]) -> list[int]:
    """By how much the number of each is higher than that of the one before of its symbol."""
    return [after.number - before.number for before, after in _successive(messages)]


def newest(messages: Sequence[Arrival]) -> dict[str, int]:
    """The number that came last, of each symbol."""
    return {each.topic: each.number for each in messages}


def _successive(messages: Sequence[Arrival]) -> list[tuple[Arrival, Arrival]]:
    found: dict[str, list[Arrival]] = defaultdict(list)
    for each in messages:
        found[each.topic].append(each)
    return [pair for of_one in found.values() for pair in itertools.pairwise(of_one)]
