"""What things cost in memory: a connection, a subscription, a topic, a message that waits; for docs/operations.md.

python -m tests.bench.sizing
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable

from tests.bench import wire
from tests.bench.program import Program, fanwire, raise_open_files

CONNECTIONS = 4_000
SUBSCRIPTIONS = 1_000
TOPICS = 100_000
WAITING = 100_000
SIZE = 128

_UNBOUNDED = ["--max-queue", "1000000", "--max-pending", "none", "--stall-timeout", "none", "--max-age", "none"]


def main() -> None:
    """Measure each with a broker of its own, and print one JSON object: bytes for each."""
    raise_open_files(CONNECTIONS + 100)
    measured = {}
    for name, of_each in (
        ("connection, one subscription", connection),
        ("subscription to a pattern of its own", own_pattern),
        ("subscription to a pattern that others have", shared_pattern),
        ("topic that was published on", topic),
        (f"message of {SIZE} bytes that waits, published alone", waiting),
        (f"message of {SIZE} bytes that waits, published 500 at a time", waiting_in_runs),
    ):
        with fanwire(*_UNBOUNDED) as broker:
            measured[name] = round(of_each(broker))
    json.dump(measured, sys.stdout, indent=1)
    print()


def _settled(broker: Program) -> int:
    time.sleep(0.5)  # what is still being put away
    return broker.memory()


def connection(broker: Program) -> float:
    """Of many, all with the same pattern."""
    before = _settled(broker)
    connections = wire.connect(broker.address, CONNECTIONS)
    wire.subscribe_all(connections, "a")
    each = (_settled(broker) - before) / CONNECTIONS
    wire.part(connections)
    return each


def own_pattern(broker: Program) -> float:
    """Fifty connections, none of their patterns the same."""
    return _subscriptions(broker, lambda client, number: f"sizing.{client}.{number}")


def shared_pattern(broker: Program) -> float:
    """Fifty connections, all with the same patterns; what the first one's cost is not in it."""
    return _subscriptions(broker, lambda _client, number: f"sizing.{number}")


def _subscriptions(broker: Program, pattern: Callable[[int, int], str]) -> float:
    connections = wire.connect(broker.address, 51)
    before = 0
    for client, each in enumerate(connections):
        for number in range(SUBSCRIPTIONS):
            wire.subscribe_all([each], pattern(client, number))
        before = before or _settled(broker)
    return (_settled(broker) - before) / (50 * SUBSCRIPTIONS)


def topic(broker: Program) -> float:
    """Nothing is remembered but its name; nobody is subscribed."""
    (publisher,) = wire.connect(broker.address, 1)
    before = _settled(broker)
    for first in range(0, TOPICS, 100):
        _send(publisher, [f"sizing.topic.{number}" for number in range(first, first + 100)])
    return (_settled(broker) - before) / TOPICS


def waiting(broker: Program) -> float:
    """For one subscriber that never reads, each of a publish by itself."""
    return _waiting(broker, 1)


def waiting_in_runs(broker: Program) -> float:
    """The same, many in one message of the publisher's."""
    return _waiting(broker, 500)


def _waiting(broker: Program, together: int) -> float:
    (frozen,) = wire.connect(broker.address, 1, receive_buffer=4096)
    wire.subscribe_all([frozen], "a", queue=WAITING + 50_000)
    (publisher,) = wire.connect(broker.address, 1)
    for _ in range(100):  # what the kernel takes
        _send(publisher, ["a"] * 500)
    before = _settled(broker)
    for _ in range(0, WAITING, together):
        _send(publisher, ["a"] * together)
    return (_settled(broker) - before) / WAITING


def _send(publisher: socket.socket, topics: list[str]) -> None:
    """Publish on each in one message; return when the broker has taken them in."""
    envelopes = [wire.publish(each, b"x" * SIZE) for each in topics[:-1]]
    publisher.sendall(wire.frame(b"".join([*envelopes, wire.publish(topics[-1], b"x" * SIZE, 1)])))
    answer = b""
    while wire.OK not in answer:
        answer += publisher.recv(4096)


if __name__ == "__main__":
    main()
