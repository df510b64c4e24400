"""What a program is told beside messages: that some are lost, and that nothing comes."""

from __future__ import annotations

from typing import TypeAlias


class LostMessages:
    """Stands in the stream where messages are missing, in subscriptions with ``report_loss=True``."""

    __slots__ = ("count", "first", "last", "reason", "topic")

    def __init__(
        self, count: int | None, reason: str, topic: str | None, first: int | None = None, last: int | None = None
    ) -> None:
        """Made by subscriptions.

        Args:
            count: How many are missing; None if that is not known.
            reason: The broker's ("queue": its queue for us was full, "keys": that held more keys than it may when
                conflating, "evicted" …), "buffer" (the handler was too slow), "too_large" (larger than
                ``max_message_bytes``), "reconnect" (the connection was away) or
                "slow_consumer" (the broker had ended the subscription for its slowness, and it came back).
            topic: Of which topic; None: of any.
            first: The offset of the first that is missing, where the topic keeps history; else None.
            last: The offset of the last one.
        """
        self.count = count
        self.reason = reason
        self.topic = topic
        self.first = first
        self.last = last

    def __repr__(self) -> str:
        offsets = "" if self.first is None else f", first={self.first}, last={self.last}"
        return f"LostMessages(count={self.count}, reason={self.reason!r}, topic={self.topic!r}{offsets})"


class Stale:
    """Stands in the stream of a subscription with ``heartbeat_s`` where nothing has come for that long."""

    __slots__ = ("connected", "offset", "pattern", "silent_s", "topic")

    def __init__(self, topic: str | None, pattern: str, silent_s: float, offset: int, *, connected: bool) -> None:
        """Made by subscriptions.

        Args:
            topic: Which topic is silent; None: any that matches (the connection is away, or very many are silent).
            pattern: The subscription's.
            silent_s: For how long, in seconds; at least since the subscription began.
            offset: Of the last message of the topic, where it keeps history; else 0.
            connected: Whether the broker said so: then nothing was published. Else nothing is known, because it is the
                connection that is silent.
        """
        self.topic = topic
        self.pattern = pattern
        self.silent_s = silent_s
        self.offset = offset
        self.connected = connected

    def __repr__(self) -> str:
        return (
            f"Stale(topic={self.topic!r}, pattern={self.pattern!r}, silent_s={self.silent_s:.3f},"
            f" offset={self.offset}, connected={self.connected})"
        )


Mark: TypeAlias = LostMessages | Stale
"""What stands in a stream among messages, and is none."""
