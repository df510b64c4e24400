"""On which terms the broker serves a subscription: what was asked for, what it granted, and its warning."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

from attrs import frozen

from fanwire.protocol import SubscribeOptions

from ..answer_fields import number_of, unsigned_of, word_of
from ..exchange.answers import Result


class Unchanged(Enum):
    """The one value that stands for "leave this option as it is": None has a meaning of its own there."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
OrUnchanged: TypeAlias = Literal[Unchanged.UNCHANGED]

# Under these slowness ends the subscription; under all others the program has agreed to miss something instead.
_ENDING = ("disconnect", "unsubscribe")


@frozen
class Granted:
    """What the broker granted: its operator may cap or force what a subscription asks for.

    What a broker does not say counts as granted as it was asked for.
    """

    queue: int | None
    """Messages that may wait at the broker; None: the broker did not say, or there is no bound."""
    max_rate: float | None
    """Messages per second and topic (and key) at most; None: no such bound."""
    on_slow: str
    """What becomes of the subscription when more would wait. With ``max_rate`` always "conflate"."""
    heartbeat_s: float | None = None
    """After how many seconds of silence, and again and again, the broker says so; None: it does not."""
    queue_grace_s: float | None = None
    """How old the oldest waiting message must be, in seconds, before ``queue`` counts; None: it counts at once, as
    always when the subscription or the broker's operator has asked for a ``queue``."""


@frozen
class LaggingReport:
    """The broker's warning before the limit: the subscription is past 75 % of what the broker lets wait: of messages,
    of memory, of the age of the oldest message, or of the time in which the socket takes nothing."""

    queued: int
    """Messages that waited at the broker."""
    limit: int
    """How many may."""
    oldest_s: float
    """How long the oldest of them had waited, in seconds."""
    received_s: float
    """When the warning came, on trio's clock (`trio.current_time`)."""


def granted_of(result: Result, asked: SubscribeOptions) -> Granted:
    """What an OK to SUBSCRIBE with the options ``asked`` grants."""
    queue, rate = result.get("queue", asked.queue), result.get("max_rate", asked.max_rate)
    heartbeat, grace = result.get("heartbeat", asked.heartbeat), result.get("queue_grace")
    on_slow = result.get("on_slow")
    return Granted(
        unsigned_of(queue),
        number_of(rate),
        word_of(on_slow) or effective_on_slow(asked),
        number_of(heartbeat),
        number_of(grace),
    )


def effective_on_slow(asked: SubscribeOptions) -> str:
    """The policy that ``asked`` comes to: a rate implies conflation."""
    return asked.on_slow if asked.max_rate is None else "conflate"


def bears_loss(asked: SubscribeOptions) -> bool:
    """Whether a program that asked for this would rather miss messages than end."""
    return effective_on_slow(asked) not in _ENDING
