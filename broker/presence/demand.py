"""Which patterns somebody is subscribed to, told on ``$sys.demand``: so a publisher need not do what nobody wants.

Told by a task of its own, never from inside a sweep or a request: the answer to a SUBSCRIBE comes before what it makes
known, and a pattern that has the same state again by then is not mentioned. Nothing is noted while nobody listens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from fanwire.protocol import matches
from fanwire.protocol.reserved import DEMAND, RESERVED

from ..timing.turn import Turn

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..delivery.routes import Registry

# Bytes of patterns in one part of a list. No pattern takes more than 257.
PART_BYTES = 32 * 1024

# Events published before others get their turn: a sweep, above all, so that they do not pile up for a listener.
PORTION = 200

_pack = msgpack.Packer().pack
_MSGPACK = b"\x01"


class Demand:
    """Tells of it. One for each broker."""

    def __init__(self, registry: Registry, fanout: Fanout) -> None:
        self._registry = registry
        self._fanout = fanout
        self._woken = trio.Event()
        self._asked = False
        self._listened = False
        self._changes: dict[str, tuple[bool, bool]] = {}  # whether it was wanted when last told of, and is now

    def asked(self, pattern: str) -> None:
        """Somebody has sent SUBSCRIBE with a pattern that begins with ``$sys``: list what is wanted if it is ours."""
        if matches(pattern, DEMAND):
            self._asked = self._listened = True
            self._woken.set()

    def changed(self, pattern: str, wanted: bool) -> None:
        """A pattern has got its first subscriber, or lost its last one."""
        if self._listened and not pattern.startswith(RESERVED):
            before, _ = self._changes.get(pattern, (not wanted, wanted))
            self._changes[pattern] = (before, wanted)
            self._woken.set()

    async def run(self) -> None:
        """Runs until cancelled; belongs to the broker."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            if not self._registry.look_up(DEMAND).routes:
                self._asked = self._listened = False
                self._changes.clear()
                continue
            await self._tell_changes()
            if self._asked:
                self._asked = False
                await self._tell_all()

    async def _tell_changes(self) -> None:
        changes, self._changes = self._changes, {}
        events = [
            {"event": "wanted" if now else "unwanted", "pattern": pattern}
            for pattern, (before, now) in changes.items()
            if before != now
        ]
        for start in range(0, len(events), PORTION):
            await self._publish(events[start : start + PORTION])

    async def _tell_all(self) -> None:
        """The list as it is at this moment. What changes while its parts go out is told behind the last one."""
        wanted, turn = dict[str, None](), Turn()
        for route in list(self._registry.routes.values()):  # a hundred thousand, perhaps
            await turn.pause()
            if route.outboxes and not route.pattern.startswith(RESERVED):
                wanted[route.pattern] = None
        parts = []
        for part in _parts(list(wanted)):
            await turn.pause()
            parts.append(part)
        for number, patterns in enumerate(parts):
            more = number < len(parts) - 1
            await self._publish([{"event": "all", "patterns": patterns, "part": number, "more": more}])

    async def _publish(self, events: list[dict[str, Any]]) -> None:
        """Publish them in one go, then let others have their turn. The topic is looked up anew: its routes change."""
        tails = [_pack(_pack(event)) + _MSGPACK for event in events]
        topic = self._registry.topic_named(DEMAND)
        self._fanout.publish_own(topic, tails)
        await trio.lowlevel.checkpoint()


def _parts(patterns: list[str]) -> Iterator[list[str]]:
    """Cut the list so that no part is over `PART_BYTES`; of an empty one there is one part, empty too."""
    part: list[str] = []
    room = PART_BYTES
    for pattern in patterns:
        size = len(_pack(pattern))
        if size > room:
            yield part
            part, room = [], PART_BYTES
        part.append(pattern)
        room -= size
    yield part
