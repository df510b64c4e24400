"""Which topics there are, and who is subscribed: for operators who look for something."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fanwire.protocol import matches
from fanwire.protocol.reserved import is_inbox, without_inbox

from ..options.queue_groups import GroupRoute
from ..telemetry.text import shown
from ..timing.turn import Turn

if TYPE_CHECKING:
    from ..delivery.outbox import Outbox
    from ..delivery.subscription import Subscription
    from ..sessions.hub import Hub
    from ..sessions.session import Session

# Names looked at before others get their turn: about 1 µs each.
PORTION = 500


@attrs.frozen
class TopicInfo:
    """One topic that was published on, or remembers something."""

    topic: str
    subscriptions: int
    """That get what is published on it."""
    lagging: int
    """How many of these lag; a queue group counts as one."""
    offset: int
    """Of its last message; 0: it keeps no history."""
    messages: int
    """Of its history, that are kept."""
    retained: bool
    """Whether it has a last value."""
    last_time_us: int | None
    """When the newest message that it remembers was taken in, in microseconds since 1970; None: it remembers none."""


@attrs.frozen
class SubscriptionInfo:
    """One subscription of one connection."""

    session: str
    name: str
    """As its client called itself in HELLO."""
    user: str | None
    """Whose it is, where the broker asks."""
    pattern: str
    group: str | None
    on_slow: str
    queue: int
    """Messages that may wait."""
    max_rate: float | None
    """Messages a second of each topic; None: all."""
    waiting: int
    """Messages that wait; conflating: keys."""
    unfinished: int | None
    """In a queue group: messages that it was given and has not finished; None: its client does not say."""
    group_waiting: int | None
    """Messages that wait for the queue group, until a member has room; None: it is in no group."""
    lagging: bool
    lost: int
    """Messages that its policy dropped so far."""
    replaced: int
    """Messages that were conflated, or passed over by its rate, so far."""


async def topics_page(hub: Hub, pattern: str, after: str, limit: int) -> tuple[list[TopicInfo], bool]:
    """Topics in the order of their names.

    Args:
        hub: Of the broker.
        pattern: Only those that match it.
        after: Only those behind this name.
        limit: How many at most.

    Returns:
        A page of them, and whether there are more.
    """
    best: set[str] = set()
    async for portion in _portions(hub):
        found = {name for name in portion if name > after and matches(pattern, name)}
        if found:
            best = set(heapq.nsmallest(limit + 1, best | found))
    page = sorted(best)
    listed, turn = [], Turn()
    for name in page[:limit]:
        listed.append(_topic(hub, name))
        await turn.pause()
    return listed, len(page) > limit


async def as_maps(listed: Sequence[attrs.AttrsInstance]) -> list[dict[str, Any]]:
    """As JSON has them. That takes some 30 µs each."""
    maps, turn = [], Turn()
    for each in listed:
        maps.append(attrs.asdict(each))
        await turn.pause()
    return maps


async def _portions(hub: Hub) -> AsyncIterator[list[str]]:
    """The names of all topics, in portions; some come twice."""
    known = hub.registry.topic_names()
    for start in range(0, len(known), PORTION):
        yield known[start : start + PORTION]
        await trio.lowlevel.checkpoint()
    remembered = hub.store.topics  # only grows
    for start in range(0, len(remembered), PORTION):
        yield [kept.name for kept in islice(remembered, start, start + PORTION)]
        await trio.lowlevel.checkpoint()


def _topic(hub: Hub, name: str) -> TopicInfo:
    topic, kept = hub.registry.look_up(name), hub.store.find(name)
    newest = None if kept is None else kept.newest()
    return TopicInfo(
        topic=name,
        subscriptions=sum([len(route.outboxes) for route in topic.routes]),
        lagging=topic.lagging,
        offset=0 if kept is None else kept.head,
        messages=0 if kept is None or not kept.has_history else kept.head + 1 - kept.first,
        retained=kept is not None and kept.last is not None,
        last_time_us=None if newest is None else newest.time_us,
    )


async def subscriptions_now(
    hub: Hub, limit: int, *, topic: str | None = None, session: str | None = None
) -> tuple[int, list[SubscriptionInfo]]:
    """Who is subscribed.

    Args:
        hub: Of the broker.
        limit: So many are listed.
        topic: Only those that get what is published on this topic.
        session: Only those of this connection.

    Returns:
        How many there are, and those listed, in the order in which their connections came.
    """
    total = 0
    listed: list[SubscriptionInfo] = []
    turn = Turn()
    for one in list(hub.sessions):
        await turn.pause()
        if not hasattr(one, "outbox") or session not in (None, one.id):
            continue
        for subscription in _of(hub, one.outbox, topic):
            total += 1
            if len(listed) < limit:
                listed.append(_subscription(one, subscription))
    return total, listed


def _of(hub: Hub, outbox: Outbox, topic: str | None) -> list[Subscription]:
    if topic is None:
        return list(outbox.subscriptions.values())
    # Looked up each time: there may be others since the last checkpoint. Mostly that is one dict.
    routes = [] if is_inbox(topic) else hub.registry.look_up(topic).routes
    return [route.outboxes[outbox] for route in routes if outbox in route.outboxes]


def _subscription(session: Session, subscription: Subscription) -> SubscriptionInfo:
    route = subscription.route
    return SubscriptionInfo(
        session=session.id,
        name=shown(session.name),
        user=session.account_name and shown(session.account_name),
        pattern=shown(without_inbox(subscription.route.pattern)),
        group=None if subscription.route.group is None else shown(subscription.route.group),
        on_slow=subscription.on_slow,
        queue=subscription.queue,
        max_rate=subscription.max_rate,
        waiting=subscription.waiting,
        unfinished=subscription.hand.unfinished if route.group is not None and subscription.hand.windowed else None,
        group_waiting=route.waiting if isinstance(route, GroupRoute) else None,
        lagging=subscription.lagging,
        lost=subscription.lost,
        replaced=subscription.replaced,
    )
