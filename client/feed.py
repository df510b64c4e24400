"""One pattern on the wire, and this program's subscriptions to it.

Several subscriptions of one pattern share one SUBSCRIBE; each has a buffer of its own. A feed outlives its
connection: its route belongs to one, and comes anew with the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import trio

from fanwire.protocol import LocalProtocolError, SubscribeOptions, is_wildcard

from .errors import FanwireError
from .message import LostMessages, Raw
from .requests import Result
from .terms import Granted, LaggingReport, granted_of

if TYPE_CHECKING:
    from .subscription import Subscription


class Feed:
    """What the broker sends for one pattern."""

    def __init__(self, pattern: str, wanted: SubscribeOptions) -> None:
        self.pattern = pattern
        self.wanted = wanted
        """What the next SUBSCRIBE asks for."""
        self._asked_first = wanted
        self._agreed = wanted  # what the broker has last said yes to
        self.wildcard = is_wildcard(pattern)
        self.route: int | None = None
        """The broker's number for it on the present connection; None: not subscribed (yet)."""
        self.granted: Granted | None = None
        """What the broker last granted."""
        self.lagging: LaggingReport | None = None
        """The broker's last warning, while it means something."""
        self.changing = trio.Lock()
        """Held by whoever changes the options, one at a time."""
        self._begun = False
        self._gap = "reconnect"  # why something will be missing when it begins again
        self._changed = trio.lowlevel.ParkingLot()
        self.subscriptions: list[Subscription] = []
        self._crowded: set[Subscription] = set()

    # ------------------------------------------------------ beginning, ending

    def begin(self, route: int, agreed: SubscribeOptions, result: Result) -> None:
        """The broker has said yes to the options ``agreed``.

        If it sent this feed before, and not on this route without a break, something may be missing between.
        """
        resumed = self._begun and self.route is None
        self.route = route
        self._begun = True
        self._agreed = agreed
        self.granted = granted_of(result, agreed)
        self.lagging = None
        self._changed.unpark_all()
        if resumed:
            self.lose(LostMessages(None, self._gap, None))
            self._gap = "reconnect"

    def pause(self) -> None:
        """The broker sends it no more, until it begins again."""
        self.route = None
        self.lagging = None

    async def subscribed(self, subscription: Subscription) -> None:
        """Wait until the broker sends it. Raises what ended ``subscription``, if that comes first."""
        while self.route is None:
            subscription.raise_if_ended()
            await self._changed.park()

    def end(self, error: FanwireError) -> None:
        """No more will come."""
        for subscription in tuple(self.subscriptions):
            subscription.end(error)
        self._changed.unpark_all()

    def end_some(self, ending: list[Subscription], error: FanwireError) -> None:
        """No more will come for these; for the others it goes on."""
        for subscription in ending:
            self.subscriptions.remove(subscription)
            self._crowded.discard(subscription)
            subscription.end(error)
        self._changed.unpark_all()

    # ----------------------------------------------------------- its options

    def check(self, wanted: SubscribeOptions) -> None:
        """Another subscription of the pattern can have the same options only: there is one queue at the broker.

        Those that the first one asked for will do too, whatever was changed since.

        Raises:
            LocalProtocolError: They differ.
        """
        if wanted not in (self.wanted, self._asked_first):
            raise LocalProtocolError(
                f"this client is already subscribed to {self.pattern!r} with {self.wanted.to_map()}, which the"
                f" broker holds for all of its subscriptions; for {wanted.to_map()} use another client, leave the"
                " first subscription first, or change it for all: await subscription.change(…)",
                code="bad_option",
            )

    def want(self, **changes: Any) -> SubscribeOptions:
        """Ask for other options from now on; return all of them.

        Raises:
            LocalProtocolError: One is wrong; nothing was changed.
        """
        self.wanted = attrs.evolve(self.wanted, **changes)
        return self.wanted

    def stay_with(self, refused: SubscribeOptions) -> None:
        """The broker said no to a change: what it agreed to before goes on."""
        if self.wanted is refused:
            self.wanted = self._agreed

    def resume_after_slowness(self, *, conflated: bool) -> None:
        """The broker has ended it for its slowness, and it shall begin again."""
        if conflated:
            self.want(on_slow="conflate")
        self._gap = "slow_consumer"

    # -------------------------------------------------------------- messages

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

    # --------------------------------------------------------------- backlog

    def crowded(self, subscription: Subscription, crowded: bool) -> bool:
        """Note whether a subscription's buffer is filling up; return whether that changes anything for the feed."""
        before = bool(self._crowded)
        if crowded:
            self._crowded.add(subscription)
        else:
            self._crowded.discard(subscription)
        return before != bool(self._crowded)

    def backlog(self) -> tuple[int, int] | None:
        """How many messages wait of how many that may, in the fullest of the buffers that are filling up, if any."""
        filling = [(one.waiting / one.limit, one.waiting, one.limit) for one in self._crowded]
        return max(filling)[1:] if filling else None
