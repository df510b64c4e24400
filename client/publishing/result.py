"""What the broker says about a publish."""

from __future__ import annotations

from attrs import frozen

from ..answer_fields import unsigned_of
from ..exchange.answers import Result


@frozen
class PublishResult:
    """What the broker says about a publish that it has taken."""

    offset: int
    """Its number in the topic's history; 0: the topic keeps none."""
    subscribers: int
    """How many subscribers it goes to."""
    lagging: int
    """How many of those are far behind (more than 75 % of what may wait for them does).

    No publish waits for them: they lose messages, or are dropped, as they have chosen. A publisher that would rather be
    slower than that looks at this number and slows itself::

        result = await client.publish(topic, data)
        if result.lagging:
            await trio.sleep(0.1)
    """
    repeated: bool = False
    """Whether its ``msg_id`` had been taken in before: it was not delivered again."""


def result_of(result: Result) -> PublishResult:
    """Read an OK to PUBLISH; what an older broker does not say is 0."""
    offset, subscribers, lagging = (_number(result, name) for name in ("offset", "subscribers", "lagging"))
    return PublishResult(offset, subscribers, lagging, result.get("repeated") is True)


def _number(result: Result, name: str) -> int:
    return unsigned_of(result.get(name)) or 0
