"""What is to be measured, and how messages of a benchmark look."""

import json
import struct
import time
from typing import Literal

import attrs

Mode = Literal["tput", "latency"]

_STAMP = struct.Struct(">QQ")
MIN_SIZE = _STAMP.size
"""Bytes that a payload has at least: its number and its time, 8 bytes each."""

WINDOW = 8_192
"""Messages of all publishers together that may be on their way to a subscriber.

The broker drops a subscriber that lets 10,000 wait (protocol reference, defaults): the publishers never get there.
"""

WINDOW_BYTES = 8 * 1024 * 1024
"""Bytes of them: half of what may wait for a connection (`max_pending`)."""

NEVER = 2**62
"""A number that no publisher reaches."""


@attrs.frozen(slots=True)
class Plan:
    """One run."""

    url: str
    run: str
    """A word in the run's topics, so that runs at the same time don't disturb one another."""
    mode: Mode
    publishers: int
    """Connections that publish, each on a topic of its own."""
    subscribers: int
    """Connections that are subscribed to all of the topics."""
    size: int
    """Bytes of a payload."""
    seconds: float
    """How long is published."""
    rate: float
    """Messages a second of all publishers together, in mode `latency`."""
    acknowledged: bool
    """Wait for the broker's answers (pipelined), or fire and forget."""

    @property
    def pattern(self) -> str:
        """What subscribers subscribe to."""
        return f"bench.{self.run}.*"

    def topic(self, publisher: int) -> str:
        """Where a publisher publishes."""
        return f"bench.{self.run}.{publisher}"

    @property
    def window(self) -> int:
        """Messages that one publisher may be ahead of the slowest subscriber."""
        return max(self.window_of_all // self.publishers, 1)

    @property
    def window_of_all(self) -> int:
        """Messages that all publishers together may be ahead."""
        return min(WINDOW, WINDOW_BYTES // self.size)

    def to_json(self) -> str:
        """For a worker's command line."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """What `to_json` gave."""
        return cls(**json.loads(text))


def stamped(number: int, padding: bytes, at_ns: int) -> bytes:
    """A payload: its number, the time at which it was due, and padding."""
    return _STAMP.pack(number, at_ns) + padding


def read_stamp(payload: bytes | memoryview) -> tuple[int, int]:
    """The number of a payload, and the time at which it was due."""
    number, at_ns = _STAMP.unpack_from(payload)
    return number, at_ns


def clock_ns() -> int:
    """Nanoseconds on a clock that all processes of a machine share, and that nobody sets."""
    return time.monotonic_ns()


def topic_publisher(topic: str) -> int:
    """Which publisher a topic belongs to."""
    return int(topic.rpartition(".")[2])
