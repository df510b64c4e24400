"""One publisher at a fixed rate, acknowledged, that nothing holds up but its own socket."""

from __future__ import annotations

import time

from tests.bench import payload, wire
from tests.bench.program import Program
from tests.bench.receiving import Subscribers


class PacedPublisher:
    """Publishes at a rate, whatever the broker does; times count from the moment a publish was due."""

    def __init__(
        self, broker: Program, everybody: Subscribers, topic: str, rate: float, size: int, token: str | None = None
    ) -> None:
        self.published = 0
        self.acks_ns: list[int] = []
        self.most_memory = 0
        """The broker's, in bytes, as far as it was looked at."""
        self._broker = broker
        self._everybody = everybody
        self._topic = topic
        self._every_ns = int(1e9 / rate)
        self._size = size
        [self._connection] = wire.connect(broker.address, 1, token=token)
        self._sent: dict[int, int] = {}  # by request number: when it was due

    def run(self, seconds: float) -> None:
        """Publish, and take in what comes back meanwhile."""
        due = time.monotonic_ns()
        end = due + int(seconds * 1e9)
        while due < end:
            self._take_acks(due)
            self._publish(due)
            self._everybody.follow()
            if self.published % 32 == 0:
                self.most_memory = max(self.most_memory, self._broker.memory())
            due += self._every_ns
        self._take_acks(time.monotonic_ns() + 10**9, all_is_enough=True)

    def forget(self) -> None:
        """What was measured so far was for warming up."""
        self.acks_ns.clear()
        self.most_memory = 0

    def _publish(self, due: int) -> None:
        request = self.published % 127 + 1
        self._sent[request] = due
        message = payload.make(self.published, due, self._size)
        self._connection.sendall(wire.frame(wire.publish(self._topic, message, request)))
        self.published += 1

    def _take_acks(self, until: int, *, all_is_enough: bool = False) -> None:
        """Wait until ``until``, or until all has been answered."""
        while (wait := until - time.monotonic_ns()) > 0 and not (all_is_enough and not self._sent):
            self._connection.settimeout(wait / 1e9)
            try:
                received = self._connection.recv(65536)
            except TimeoutError:
                return
            now, at = time.monotonic_ns(), received.find(wire.OK)
            while at >= 0:
                if (was_due := self._sent.pop(received[at + 2], None)) is not None:
                    self.acks_ns.append(now - was_due)
                at = received.find(wire.OK, at + 2)
