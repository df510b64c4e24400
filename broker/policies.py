"""What becomes of a chunk when a subscription's queue is full: one function for each ``on_slow``.

Each puts the chunk in line as far as it may, counts what is dropped or replaced, and returns whether the subscription
can go on. ``disconnect`` and ``unsubscribe`` are the same here: what follows from False is for others to do.

Exact by construction: delivered + lost + replaced = published, for each subscription that lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .line import Entry

if TYPE_CHECKING:
    from .outbox import Outbox
    from .routes import Chunk
    from .subscription import Subscription

Policy: TypeAlias = Callable[["Outbox", "Subscription", "Chunk"], bool]


def refuse(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Nothing is dropped: there is room for all of the chunk, or the subscriber is too slow."""
    if subscription.waiting + chunk.count > subscription.queue:
        return False
    return outbox.put(Entry(subscription, chunk))


def drop_oldest(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """The new ones stay; what waited longest goes, message by message."""
    make_room(outbox, subscription, chunk.count, "queue")
    entry = Entry(subscription, chunk)
    excess = chunk.count - subscription.queue
    if excess > 0:
        outbox.lose_first(subscription, chunk, excess, "queue")
        entry.cut(excess, chunk.count - excess)
    if not outbox.put(entry):
        outbox.lose_last(subscription, chunk, entry.count, "queue")
    return True


def drop_newest(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """What waits stays; of the new ones as many as there is room for."""
    room = max(0, min(subscription.queue - subscription.waiting, chunk.count))
    entry = Entry(subscription, chunk)
    entry.cut(0, room)
    if room and not outbox.put(entry):
        room = 0
    if room < chunk.count:
        outbox.lose_last(subscription, chunk, chunk.count - room, "queue")
    return True


def conflate(outbox: Outbox, subscription: Subscription, chunk: Chunk) -> bool:
    """Of each key only the newest waits, in the place of the first. More keys than may wait: the oldest is lost."""
    outbox.count_replaced(subscription, chunk.count - 1)
    newest = chunk.newest()
    entry = subscription.newest.get(newest.key)
    if entry is not None:
        outbox.replace(entry, newest)
        return True
    make_room(outbox, subscription, 1, "keys")
    entry = Entry(subscription, newest)
    if outbox.put(entry):
        subscription.newest[newest.key] = entry
    else:
        outbox.lose_last(subscription, newest, 1, "keys")
    return True


def make_room(outbox: Outbox, subscription: Subscription, count: int, reason: str) -> None:
    """Drop the oldest messages that wait of a subscription, so that ``count`` more fit (or none wait)."""
    excess = subscription.waiting + count - subscription.queue
    while excess > 0 and subscription.entries:
        oldest = subscription.entries[0]
        dropped = min(excess, oldest.count)
        outbox.drop_first(subscription, dropped, reason)
        excess -= dropped


POLICIES: dict[str, Policy] = {
    "disconnect": refuse,
    "unsubscribe": refuse,
    "drop_oldest": drop_oldest,
    "drop_newest": drop_newest,
    "conflate": conflate,
}
