"""What the operator says about topics: which policy a subscriber gets, how long a publisher may wait, what is kept.

A rule about subscribers concerns every subscription that could get a message of the rule's pattern: a client that
subscribes to ``>`` gets no more out of ``stocks.>`` than one that subscribes to that. So of several rules the strictest
cap counts. A rule about publishers, or about what a topic remembers, concerns one topic, and the first that says
something counts.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import attrs

from fanwire.protocol import (
    NO_LIMIT,
    ON_SLOW,
    SubscribeOptions,
    check_pattern,
    matches,
    pattern_covers,
    patterns_overlap,
)
from fanwire.protocol.ranges import BYTES, COUNT, RATE, SECONDS, Range
from fanwire.protocol.reserved import OWN, RESERVED, is_watch

# Silence is told of this often at most, whatever is asked for.
SHORTEST_HEARTBEAT_S = 0.1


def _pattern(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
    check_pattern(value)


def _on_slow(_instance: object, _attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and value not in ON_SLOW:
        raise ValueError(f"on_slow is {value!r}; it must be one of {', '.join(ON_SLOW)}")


def _flag(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{attribute.name} is {value!r}; it must be True, False or None")


LIFE = Range(0.001, 100 * SECONDS.most)
"""How long history may be kept, in seconds: up to a hundred years."""


@attrs.frozen(kw_only=True)
class TopicRule:
    """One rule. What it says nothing about is left to other rules and to the client."""

    pattern: str = attrs.field(validator=_pattern)
    """Which topics."""
    user: str | None = None
    """Whose subscriptions: a shell pattern (``legacy-*``) for the user; None: everybody's. Where nobody is asked who
    they are it is for the name that a client gives in HELLO: then such a rule is for those who mean well."""
    on_slow: str | None = attrs.field(default=None, validator=_on_slow)
    """The policy they get, whatever they ask for."""
    max_queue: int | None = attrs.field(default=None, validator=COUNT.or_none)
    """The most messages that may wait."""
    max_rate: float | None = attrs.field(default=None, validator=RATE.or_none)
    """The most messages a second and key, also for who asks for no limit. Implies conflation."""
    publisher_wait_s: float | None = attrs.field(default=None, validator=SECONDS.or_none)
    """A publish waits for lagging subscribers, so many seconds at most. Nobody but its publisher does."""
    retain: bool | None = attrs.field(default=None, validator=_flag)
    """Whether the topic remembers its last value; None: each publish says so itself (`retain`)."""
    presence: bool | None = attrs.field(default=None, validator=_flag)
    """Whether those who ask are told who is subscribed (`presence_on`)."""
    history: int | None = attrs.field(default=None, validator=COUNT.or_none)
    """Messages that each topic remembers; None: none, and they have no offsets."""
    history_s: float | None = attrs.field(default=None, validator=LIFE.or_none)
    """How long at most, in seconds."""
    history_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=BYTES)
    """How many bytes at most, of each topic; the newest message is remembered however large it is."""

    def __attrs_post_init__(self) -> None:
        if self.history is None and self.history_s is not None:
            raise ValueError("history_s says how long messages are kept; say with history how many, too")

    def concerns(self, pattern: str, user: str) -> bool:
        """Whether a subscription of ``user`` to ``pattern`` could get what the rule is about."""
        return (self.user is None or fnmatchcase(user, self.user)) and patterns_overlap(self.pattern, pattern)


@attrs.frozen
class Keeping:
    """What a topic remembers."""

    retain: bool | None = None
    """Its last value; None: where a publish asks for it."""
    messages: int | None = None
    """So many messages; None: no history."""
    seconds: float | None = None
    """For so long."""
    bytes: int = 0
    """So many bytes of them."""

    @property
    def anything(self) -> bool:
        """Whether it remembers anything without being asked."""
        return bool(self.retain) or self.messages is not None


# One object for all topics of a rule: there may be a million of them.
_NOTHING = Keeping()
_keeping = lru_cache(maxsize=1_000)(Keeping)


def keeping(rules: tuple[TopicRule, ...], topic: str) -> Keeping:
    """What ``topic`` remembers. The first rule that speaks of it and says something of what is kept settles all.

    Inboxes remember nothing, nor do other topics that begin with ``$`` and on which the broker never publishes.
    """
    if topic.startswith(RESERVED) and topic not in OWN:
        return _NOTHING
    for rule in rules:
        says = rule.retain is not None or rule.history is not None
        if says and matches(rule.pattern, topic):
            return _keeping(rule.retain, rule.history, rule.history_s, rule.history_bytes)
    return _NOTHING


def keeps_all(rules: tuple[TopicRule, ...], pattern: str) -> bool:
    """Whether every topic that ``pattern`` matches has history, whatever it is called.

    Where it takes more than one rule to say so the answer is no.
    """
    for rule in rules:
        says = rule.retain is not None or rule.history is not None
        if says and patterns_overlap(rule.pattern, pattern):
            return rule.history is not None and pattern_covers(rule.pattern, pattern)
    return False


@attrs.frozen
class Grant:
    """What a subscription gets; echoed in OK."""

    queue: int
    max_rate: float | None
    on_slow: str
    queue_grace: float | None = None
    """Seconds; None: ``queue`` counts at once."""
    heartbeat: float | None = None
    presence: bool = False


def grant(
    rules: tuple[TopicRule, ...],
    pattern: str,
    user: str,
    wanted: SubscribeOptions,
    *,
    queue: int,
    max_queue: int,
    queue_grace: float | None,
) -> Grant:
    """What of the wanted options a subscription gets.

    Args:
        rules: The operator's.
        pattern: What is subscribed to.
        user: Who subscribes.
        wanted: What was asked for.
        queue: For who asks for nothing.
        max_queue: The most for anybody.
        queue_grace: How old, in seconds, the oldest waiting message must be before `queue` counts, for those who did
            not say what they want and whom no rule caps; None: it counts at once.
    """
    ours = [rule for rule in rules if rule.concerns(pattern, user)]
    queues = [rule.max_queue for rule in ours if rule.max_queue is not None]
    rates = [rule.max_rate for rule in ours if rule.max_rate is not None]
    if wanted.max_rate is not None:
        rates.append(wanted.max_rate)
    forced = next((rule.on_slow for rule in ours if rule.on_slow is not None), wanted.on_slow)
    exact = wanted.queue not in (None, NO_LIMIT) or bool(queues) or queue > max_queue
    return Grant(
        queue=min(wanted.queue or queue, max_queue, *queues),
        max_rate=min(rates) if rates else None,
        on_slow="conflate" if rates else forced,
        queue_grace=None if exact else queue_grace,
        heartbeat=None if wanted.heartbeat is None else max(wanted.heartbeat, SHORTEST_HEARTBEAT_S),
        presence=wanted.presence or is_watch(pattern),
    )


def publisher_wait(rules: tuple[TopicRule, ...], topic: str) -> float | None:
    """How many seconds a publish on ``topic`` may wait for lagging subscribers; None: it does not."""
    for rule in rules:
        if rule.publisher_wait_s is not None and patterns_overlap(rule.pattern, topic):
            return rule.publisher_wait_s
    return None


def presence_on(rules: tuple[TopicRule, ...], pattern: str) -> bool:
    """Whether it is told who is subscribed to ``pattern``: as the first rule says that speaks of some of its topics.

    Without such a rule it is not; nor of what begins with ``$``.
    """
    if pattern.startswith(RESERVED):
        return False
    for rule in rules:
        if rule.presence is not None and patterns_overlap(rule.pattern, pattern):
            return rule.presence
    return False
