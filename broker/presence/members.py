"""Who is subscribed to what: a table that can be read page by page while it changes. Pure data, no clock.

A member is a client on one pattern, however many connections it has at the moment; mostly one, two while it comes back
before the old one is known to be dead, none for a moment if it was the other way round.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from fanwire.protocol import patterns_overlap

from ..telemetry.text import shown

if TYPE_CHECKING:
    from ..delivery.subscription import Subscription

# Members looked at for one page, up to 4 µs each, and bytes of those that are in it (and one more).
LOOKS = 250
PAGE_BYTES = 32 * 1024

# Numbers of the order that may be dead beside as many as are alive.
_SLACK = 256

_pack = msgpack.Packer().pack


class Present(Protocol):
    """One connection of a client."""

    id: str
    """The broker's name for it."""
    client: str | None
    """What makes it the same client after a reconnect, as it says."""

    @property
    def name(self) -> str:
        """What it calls itself; empty: nothing."""

    @property
    def has_ended(self) -> bool:
        """Whether it is about to go."""

    @property
    def account_name(self) -> str | None:
        """The user whose token it has presented; None: anonymous, or nobody asks."""


class Member:
    """A client on a pattern."""

    __slots__ = ("_last", "client", "number", "pattern", "present", "subscriptions", "told")

    def __init__(self, pattern: str, client: str, number: int) -> None:
        self.pattern = pattern
        self.client = client
        """What others know the client by; it stays the same when it comes back."""
        self.number = number
        """The later it came, the greater."""
        self.subscriptions: dict[Subscription, Present] = {}
        """What it has at the moment, the newest last: several if it has several connections, or is in queue groups of
        the pattern. None: it may yet come back."""
        self.present = True
        """Whether it is in the table."""
        self.told = False
        """Whether it was when watchers were last told."""
        self._last: tuple[str, str | None] = ("", None)

    def enter(self, subscription: Subscription, session: Present) -> None:
        """It has subscribed."""
        self.subscriptions[subscription] = session

    def leave(self, subscription: Subscription) -> None:
        """The contrary."""
        self._last = self.shown()
        del self.subscriptions[subscription]

    def shown(self) -> tuple[str, str | None]:
        """Its newest session, and the name it gives itself: when it has gone the last one."""
        for session in reversed(self.subscriptions.values()):
            return session.id, shown(session.name) or None
        return self._last


def client_of(session: Present) -> str:
    """What others know a session's client by: nothing from which one could learn how to pass for it.

    The same user's: a name that two users choose alike is not the same client.
    """
    if session.client is None:
        return session.id
    user = session.account_name or ""
    return blake2b(f"{len(user)} {user} {session.client}".encode(), digest_size=8).hexdigest()


class Members:
    """All of them."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], Member] = {}
        self._by_number: dict[int, Member] = {}
        self._order: list[int] = []  # of those numbers, and of some that have gone
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, pattern: str, client: str) -> Member | None:
        """The member, if it is there."""
        return self._by_key.get((pattern, client))

    def add(self, pattern: str, client: str) -> Member:
        """A new one."""
        self._numbers += 1
        member = self._by_key[pattern, client] = self._by_number[self._numbers] = Member(pattern, client, self._numbers)
        self._order.append(self._numbers)
        return member

    def remove(self, member: Member) -> None:
        """It has gone for good."""
        member.present = False
        del self._by_key[member.pattern, member.client], self._by_number[member.number]
        if len(self._order) > 2 * len(self._by_number) + _SLACK:
            self._order = list(self._by_number)  # numbers only grow, and dicts keep their order

    def page(self, pattern: str, after: int) -> tuple[list[list[Any]], int | None]:
        """Some of those whose pattern overlaps, in the order in which they came, from behind the number ``after``.

        Returns:
            Pattern, session, name and client of each; and what ``after`` is for the next page, None if there is none.
            Whoever is there all the time while somebody reads page after page is in one of them.
        """
        begin = bisect_right(self._order, after)
        numbers = self._order[begin : begin + LOOKS]
        overlaps: dict[str, bool] = {}
        page: list[list[Any]] = []
        size = 0
        for number in numbers:
            member = self._by_number.get(number)
            if member is None:
                continue
            if member.pattern not in overlaps:
                overlaps[member.pattern] = patterns_overlap(pattern, member.pattern)
            if overlaps[member.pattern]:
                page.append([member.pattern, *member.shown(), member.client])
                size += len(_pack(page[-1]))
            if size > PAGE_BYTES:
                return page, number
        more = begin + LOOKS < len(self._order)
        return page, numbers[-1] if more else None
