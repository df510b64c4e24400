"""One pattern on the wire, and this program's subscriptions to it.

Several subscriptions of one pattern share one SUBSCRIBE; each has a buffer of its own. A feed outlives its
connection: its route belongs to one, and comes anew with the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from fanwire.protocol import LocalProtocolError, SubscribeOptions, is_wildcard

from .errors import FanwireError
from .message import LostMessages, Raw

if TYPE_CHECKING:
    from .subscription import Subscription


class Feed:
    """What the broker sends for one pattern."""

    def __init__(self, pattern: str, wanted: SubscribeOptions) -> None:
        self.pattern = pattern
        self.wanted = wanted
        self.wildcard = is_wildcard(pattern)
        self.route: int | None = None
        """The broker's number for it on the present connection; None: not subscribed (yet)."""
        self._begun = False
        self._changed = trio.lowlevel.ParkingLot()
        self.subscriptions: list[Subscription] = []
        self._crowded: set[Subscription] = set()

    def begin(self, route: int) -> None:
        """The broker sends it from now on. If it did before, on another connection, something may be missing
        between."""
        self.route = route
        self._changed.unpark_all()
        if self._begun:
            self.lose(LostMessages(None, "reconnect", None))
        self._begun = True

    async def subscribed(self, subscription: Subscription) -> None:
        """Wait until the broker sends it. Raises what ended ``subscription``, if that comes first."""
        while self.route is None:
            subscription.raise_if_ended()
            await self._changed.park()

    def check(self, wanted: SubscribeOptions) -> None:
        """Another subscription of the pattern can have the same options only: there is one queue at the broker.

        Raises:
            LocalProtocolError: They differ.
        """
        if wanted != self.wanted:
            raise LocalProtocolError(
                f"this client is already subscribed to {self.pattern!r} with {self.wanted.to_map()}, which the"
                f" broker holds for all of its subscriptions; for {wanted.to_map()} use another client, or leave the"
                " first subscription first",
                code="bad_option",
            )

    def receive(self, run: list[Raw], columns: list[tuple[Any, ...]]) -> None:
        """Hand a run of messages to every subscription.

        Args:
            run: MESSAGE envelopes of this feed's route.
            columns: The same, transposed.

        Raises:
            TypeError, ValueError: They have not the shape of protocol.md; nobody got any.
        """
        _, _, topics, offsets, times, payloads, *_ = columns  # ValueError: one is too short
        # Joining and adding checks all types in C. What stands behind the payload is looked at when it is used.
        size = len(b"".join(payloads))
        sum(offsets)
        sum(times)
        if self.wildcard:
            "".join(topics)
        for subscription in tuple(self.subscriptions):
            subscription.receive(self, run, size)

    def lose(self, lost: LostMessages) -> None:
        """The broker, or an outage, lost messages of this feed."""
        for subscription in tuple(self.subscriptions):
            subscription.note_loss(lost)

    def end(self, error: FanwireError) -> None:
        """No more will come."""
        for subscription in tuple(self.subscriptions):
            subscription.end(error)
        self._changed.unpark_all()

    def crowded(self, subscription: Subscription, crowded: bool) -> bool:
        """Note whether a subscription's buffer is filling up; return whether that changes anything for the feed."""
        before = bool(self._crowded)
        if crowded:
            self._crowded.add(subscription)
        else:
            self._crowded.discard(subscription)
        return before != bool(self._crowded)
