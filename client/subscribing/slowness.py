"""That the broker found this client too slow: its facts, in words that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanwire.protocol import Goodbye

from ..answer_fields import unsigned_of
from ..errors import SlowConsumer

_REMEDY = (
    "the network, or this process, took messages more slowly than they came. Let the broker keep only the newest of"
    " each topic (on_slow='conflate', or on_slow_reconnect='conflate' to come back so), ask for less (max_rate=…, a"
    " narrower pattern), let more wait (a larger queue=…, or none of your own), keep this process's event loop free, or"
    " share the work among more processes"
)


def for_slowness(goodbye: Goodbye | None) -> bool:
    """Whether the broker ended the connection because messages were not taken, and has facts to show."""
    return goodbye is not None and goodbye.code == "slow_consumer" and "queued" in goodbye.detail


def slow_at_broker(pattern: str, message: str, detail: Mapping[str, Any]) -> SlowConsumer:
    """The end of a subscription of ``pattern``.

    Args:
        pattern: The subscription's.
        message: The broker's words.
        detail: The broker's facts (protocol reference, What becomes of a slow subscriber).
    """
    oldest_ms = _number(detail, "oldest_ms")
    measure = detail.get("measure")
    return SlowConsumer(
        f"the broker ended the subscription of {pattern!r}: {message}; {_REMEDY}",
        pattern=pattern,
        queued=_number(detail, "queued"),
        queued_bytes=_number(detail, "queued_bytes"),
        oldest_s=None if oldest_ms is None else oldest_ms / 1000,
        limit=_number(detail, "limit"),
        at_broker=True,
        measure=measure if isinstance(measure, str) else None,
    )


def _number(detail: Mapping[str, Any], name: str) -> int | None:
    return unsigned_of(detail.get(name))
