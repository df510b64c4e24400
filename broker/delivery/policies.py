"""What becomes of a chunk when a subscription's queue is full: one function for each ``on_slow``.

Each puts the chunk in line as far as it may, counts what is dropped or replaced, and returns whether the subscription
can go on. What follows from False is for others to do.

A subscription that asked for a ``queue`` has as many messages waiting as it asked for. All others are counted only when
they are late (`_counts`): a count alone does not tell a reader that is slow from a burst.

Exact by construction: delivered + lost + replaced = published, for each subscription that lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .subscription import Entry

if TYPE_CHECKING:
    from ..topics.chunks import Chunk
    from .outbox import Outbox
    from .subscription import Subscription

Policy: TypeAlias = Callable[["Outbox", "Subscription", "Chunk"], bool]


# Of a subscription that becomes late with very much waiting, so many times what comes is dropped each time: until no
# more wait than may, and nobody has to wait for hundreds of thousands to be dropped at once.
SHED = 4

# Messages or keys dropped at once, beyond as many as come: there are more only where ``queue`` has become much smaller.
MOST_DROPPED = 250


def disconnect(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Nothing is dropped: there is room for all of the chunk, or the subscriber is too slow."""
    if subscription.waiting + chunk.count > subscription.queue and _late(subscription, chunk):
        return False
    outbox.put(Entry(subscription, chunk))
    return True


def unsubscribe(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Likewise; and before the connection is over its bytes, and would end as a whole, the subscription does."""
    if subscription.waiting + chunk.count > subscription.queue and _counts(outbox, subscription, chunk):
        return False
    outbox.put(Entry(subscription, chunk))
    return True


def drop_oldest(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """The new ones stay; what waited longest goes, message by message."""
    entry = Entry(subscription, chunk)
    if subscription.waiting + chunk.count > subscription.queue and _counts(outbox, subscription, chunk):
        make_room(outbox, subscription, chunk.count, "queue")
        excess = chunk.count - subscription.queue
        if excess > 0 and not subscription.entries:
            outbox.lose_first(subscription, chunk, excess, "queue")
            entry.cut(excess, chunk.count - excess)
    outbox.put(entry)
    return True


def drop_newest(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """What waits stays; of the new ones as many as there is room for."""
    entry = Entry(subscription, chunk)
    room = max(0, subscription.queue - subscription.waiting)
    if room >= chunk.count or not _counts(outbox, subscription, chunk):
        outbox.put(entry)
        return True
    entry.cut(0, room)
    if room:
        outbox.put(entry)
    outbox.lose_last(subscription, chunk, chunk.count - room, "queue")
    return True


def conflate(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Of each key only the newest waits, in the place of the first. More keys than may wait: the oldest is lost."""
    outbox.count_replaced(subscription, chunk.count - 1)
    newest = chunk.newest()
    key = newest.key
    entry = subscription.newest.get(key)
    if entry is not None:
        outbox.replace(entry, newest)
        return True
    if subscription.waiting >= subscription.queue and _counts(outbox, subscription, chunk):
        make_room(outbox, subscription, 1, "keys")
    outbox.put_key(Entry(subscription, newest), key)
    return True


def make_room(outbox: Outbox, subscription: Subscription, count: int, reason: str) -> None:
    """Drop the oldest messages that wait of a subscription, so that ``count`` more fit (or none wait).

    Of one that was not counted before it was late, or may have fewer than before, there may be very many: then some.
    """
    excess = subscription.waiting + count - subscription.queue
    if subscription.grace_s is not None:
        excess = min(excess, SHED * count)
    elif excess > count + MOST_DROPPED:
        excess = count + MOST_DROPPED
    while excess > 0 and subscription.entries:
        oldest = subscription.entries[0]
        dropped = min(excess, oldest.count)
        outbox.drop_first(subscription, dropped, reason)
        excess -= dropped


def _late(subscription: Subscription, chunk: Chunk) -> bool:
    """Whether the oldest message that waits is so old, now that ``chunk`` comes, that ``queue`` counts."""
    grace_s = subscription.grace_s
    return grace_s is None or subscription.age_s(chunk.born) > grace_s


def _counts(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Whether ``queue`` counts: the subscription is late, or the connection would soon be disconnected for bytes."""
    return _late(subscription, chunk) or outbox.is_crowded()


POLICIES: dict[str, Policy] = {
    "disconnect": disconnect,
    "unsubscribe": unsubscribe,
    "drop_oldest": drop_oldest,
    "drop_newest": drop_newest,
    "conflate": conflate,
}
