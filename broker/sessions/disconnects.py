"""How a connection ends when the broker ends it: which close code, and what the client is told before.

One table of what can happen (protocol.md, Errors and closing); the session carries an `Ending` out.
"""

from __future__ import annotations

import random

import attrs

from fanwire.protocol import Error, Goodbye, encode

from ..delivery.outbox import SlowConsumer


@attrs.frozen
class Ending:
    """What to say and do at the end of one connection."""

    code: int
    """The close code."""
    reason: str
    """For the close frame and the log."""
    farewell: bytes = b""
    """The last envelopes: GOODBYE, or the ERROR that led here."""
    discard: bool = False
    """Whether what still waits for the client is thrown away, since it would not get through anyway."""
    facts: dict[str, object] = attrs.field(factory=dict)
    """What was measured, for those who look into it afterwards."""


GONE = Ending(1006, "connection lost", discard=True)


def _goodbye(code: str, message: str, spread_s: float, detail: dict[str, object] | None = None) -> bytes:
    return encode(Goodbye(code, message, int(random.uniform(0, spread_s) * 1000), detail or {}))


def slow_consumer(verdict: SlowConsumer) -> Ending:
    """Dropped by backpressure: 4008, with the facts."""
    what = why_slow(verdict)
    detail = verdict.detail()
    farewell = _goodbye("slow_consumer", what, 1.0, detail)
    return Ending(4008, f"slow consumer: {what}", farewell, discard=True, facts=detail)


def why_slow(verdict: SlowConsumer) -> str:
    """Say which limit it passed."""
    return {
        "queue": _over_the_queue(verdict),
        "max_pending": "more bytes waited than a connection may have waiting",
        "stall_timeout": "the socket took nothing for too long",
        "max_age": "the oldest waiting message became too old",
        "max_total_pending": "too many bytes waited for all clients together, and most of them for this one",
    }[verdict.measure]


def _over_the_queue(verdict: SlowConsumer) -> str:
    subscription = verdict.subscription
    if subscription is None or subscription.grace_s is None:
        return "more messages waited than the subscription's queue holds"
    if verdict.oldest_s > subscription.grace_s:
        why = f"the oldest of them for more than {subscription.grace_s:g} s"
    else:
        why = "and the connection had nearly as many bytes waiting as it may have"
    return f"more than {subscription.queue} messages waited, {why}"


def silent(timeout_s: float) -> Ending:
    """Subscribed to nothing, and silent: 4010."""
    message = f"subscribed to nothing, and said nothing for {timeout_s:g} s"
    return Ending(4010, message, _goodbye("slow_consumer", message, 1.0))


def idle(timeout_s: float) -> Ending:
    """Pinged, and no sign of life: 4010."""
    message = f"no sign of life for {timeout_s:g} s after a ping"
    return Ending(4010, message, _goodbye("slow_consumer", message, 1.0), discard=True)


def unfinished(timeout_s: float) -> Ending:
    """A message that never ends: 1008 (RFC 6455 section 7.4.1, policy)."""
    return Ending(1008, f"message not finished within {timeout_s:g} s", discard=True)


def too_many_connections(spread_s: float, who: str = "the broker has") -> Ending:
    """The broker is full, or its user: 4029."""
    message = f"{who} as many connections as it may have"
    return Ending(4029, message, _goodbye("too_many", message, spread_s))


def too_many_opening(spread_s: float) -> Ending:
    """No HELLO yet, and many others wait to say theirs: 4029."""
    message = "too many connections have yet to say HELLO"
    return Ending(4029, message, _goodbye("too_many", message, spread_s))


def too_many_envelopes(most: int) -> Ending:
    """A message that nobody looks into: ERROR id 0, then 1009."""
    message = f"a message may have {most} envelopes"
    return Ending(1009, message, encode(Error(0, "too_many", message, {"limit": "max_envelopes"})))


def rate_limited(message: str, retry_after_s: float, limit: str) -> Ending:
    """It kept on asking for more than it may: 4009."""
    detail: dict[str, object] = {"limit": limit}
    farewell = encode(Goodbye("rate_limited", message, int(retry_after_s * random.uniform(1000, 2000)), detail))
    return Ending(4009, message, farewell, discard=True)


def no_hello(timeout_s: float) -> Ending:
    """HELLO is required and did not come: 4001."""
    message = f"no HELLO within {timeout_s:g} s"
    return Ending(4001, message, _goodbye("unauthenticated", message, 1.0))


def not_accepted(code: str, message: str) -> Ending:
    """A token that is bad or has expired, or none where one is needed: 4001. What waited is for somebody else."""
    return Ending(4001, message, _goodbye(code, message, 1.0), discard=True)


def other_user() -> Ending:
    """A connection is one user's: 4003."""
    message = "a connection stays with its user; open another one"
    return Ending(4003, message, _goodbye("forbidden", message, 1.0), discard=True)


def kicked() -> Ending:
    """An operator has sent it away: 4003, which no SDK takes for a reason to come back."""
    message = "disconnected by an operator"
    return Ending(4003, message, _goodbye("forbidden", message, 1.0), discard=True)


def malformed(message: str) -> Ending:
    """Bytes that cannot be resynchronised: ERROR id 0, then 1007."""
    return Ending(1007, message, encode(Error(0, "malformed", message)))


def draining(spread_s: float, since_s: float = 0.0) -> Ending:
    """The broker shuts down: 1001, and a moment to come back that differs for each client.

    Args:
        spread_s: It is drawn from so long since the drain began.
        since_s: How long ago that was.
    """
    message = "the broker is shutting down"
    wait_ms = int(max(0.0, random.uniform(0, spread_s) - since_s) * 1000)
    return Ending(1001, message, encode(Goodbye("shutting_down", message, wait_ms, {})))


def internal() -> Ending:
    """A defect of ours: 1011."""
    return Ending(1011, "internal error", encode(Error(0, "internal", "internal error; see the broker's log")), True)
