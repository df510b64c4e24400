"""What one subscription has lost at one place of its stream, until it can be told: LOST (protocol.md, Delivery)."""

from __future__ import annotations

from typing import Any

from fanwire.protocol import Lost, encode

from ..topics.chunks import ConflationKey, LossChunk
from ..topics.routes import Route

# Topics told apart at one place. Beyond that what was lost is summed up in one LOST without a topic: 256 names of up to
# 255 bytes are 64 KiB, and a subscriber of a wildcard could lose messages of any number of topics.
MAX_TOPICS = 256

# Bytes of one place, and of each topic at the place beside its name. Beyond so many bytes of one connection, and of all
# connections together, topics are told apart no more: what else is lost has one LOST without a topic at its place.
PLACE, FACT = 250, 200
MAX_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024


class Losses:
    """Messages lost side by side, by topic. Adjoining losses of one topic are one."""

    __slots__ = ("_counts", "_reason", "size")

    def __init__(self, reason: str) -> None:
        """``reason``: as LOST has it, `queue` or `keys`."""
        self._reason = reason
        self.size = PLACE
        """About how many bytes of memory it takes."""
        self._counts: dict[tuple[str | None, str], int] = {}  # by topic and reason: a policy can be changed meanwhile

    def note(self, topic: str | None, count: int) -> None:
        """``count`` more messages of ``topic`` (None: of any) are lost."""
        self._note(topic, self._reason, count)

    def _note(self, topic: str | None, reason: str, count: int) -> None:
        counts = self._counts
        if (topic, reason) not in counts and len(counts) >= MAX_TOPICS:
            self._counts = {}
            for (_, each), lost in counts.items():
                self._counts[None, each] = self._counts.get((None, each), 0) + lost
            counts = self._counts
            self.size = PLACE + FACT * len(counts)
        if (None, reason) in counts:
            topic = None
        before = counts.get((topic, reason))
        if before is None:
            self.size += FACT + len(topic or "")
        counts[topic, reason] = (before or 0) + count

    def merge(self, later: Losses, *, coarse: bool = False) -> None:
        """Take in what was lost right behind it; ``coarse``: without its topics."""
        for (topic, reason), count in later._counts.items():
            self._note(None if coarse else topic, reason, count)

    def topics(self) -> set[str | None]:
        """Whose messages; None among them: of any."""
        return {topic for topic, _ in self._counts}

    def envelopes(self, route: int) -> list[bytes]:
        """LOST for each topic."""
        return [encode(Lost(route, count, reason, topic)) for (topic, reason), count in self._counts.items()]

    def chunks(self, route: Route[Any, Any], now: float, keys: frozenset[ConflationKey]) -> list[LossChunk]:
        """The same, to be gathered among messages; ``keys``: of which they were."""
        return [
            LossChunk(route, topic, encode(Lost(route.number, count, reason, topic)), count, reason, now, keys)
            for (topic, reason), count in self._counts.items()
        ]
