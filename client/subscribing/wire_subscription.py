"""One pattern on the wire, and this program's subscriptions to it.

Several subscriptions of one pattern share one SUBSCRIBE; each has a buffer of its own. A feed outlives its
connection: its route belongs to one, and comes anew with the next.
"""

from __future__ import annotations

import logging
from array import array
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fanwire.protocol import LocalProtocolError, SubscribeOptions, is_wildcard
from fanwire.protocol.topics import MAX_NAME_BYTES

from ..errors import FanwireError, MessageTooLarge
from ..exchange.answers import Result
from ..message import REPLAYED, TOO_LARGE, Raw
from ..notices import LostMessages
from .granted import Granted, LaggingReport, granted_of
from .position import Asked, Beginning, Position
from .weight import MESSAGE, PLAIN_ENVELOPE, WeighedRun, weighed, weight_of_all

if TYPE_CHECKING:
    from .subscription import Subscription


_log = logging.getLogger("fanwire.client")


class Feed:
    """What the broker sends for one pattern."""

    acknowledges = False
    """Whether the broker hears what is finished."""

    def __init__(self, pattern: str, wanted: SubscribeOptions, beginning: Beginning) -> None:
        self.pattern = pattern
        self.beginning = beginning
        self.wanted = wanted
        """What the next SUBSCRIBE asks for."""
        self._asked_first = wanted
        self._agreed = wanted  # what the broker has last said yes to
        self.wildcard = is_wildcard(pattern)
        self.route: int | None = None
        """The broker's number for it on the present connection; None: not subscribed (yet)."""
        self.asking = False
        """Whether a SUBSCRIBE for it waits for the broker's answer."""
        self.granted: Granted | None = None
        """What the broker last granted."""
        self.lagging: LaggingReport | None = None
        """The broker's last warning, while it means something."""
        self.changing = trio.Lock()
        """Held by whoever changes the options, one at a time."""
        self.position = Position(pattern, wildcard=self.wildcard, beginning=beginning)
        """How far it has come."""
        self.replaying = False
        """Whether what comes was asked for with snapshot or replay, or came in between."""
        self.recovered: bool | None = None
        """Whether the last break has cost nothing; None: there was none, or that is not known yet."""
        self._asked = Asked.LIVE
        self._answer: Result = {}
        self._intact: bool | None = None
        self._begun = False
        self._gap = "reconnect"  # why something will be missing when it begins again
        self._changed = trio.lowlevel.ParkingLot()
        self.subscriptions: list[Subscription] = []
        self._crowded: set[Subscription] = set()
        self._too_large = 0
        self.resumed = False
        """Whether it goes on after a break."""

    # ------------------------------------------------------ beginning, ending

    def begin(self, route: int, agreed: SubscribeOptions, asked: Asked | None, result: Result) -> bool:
        """The broker has said yes to the options ``agreed``, and to begin with what was ``asked`` (None: goes on).

        If it sent this feed before, and not on this route without a break, something may be missing between: that is
        what is returned.
        """
        resumed = self._begun and self.route is None
        self.route = route
        self._begun = True
        self._agreed = agreed
        self.granted = granted_of(result, agreed)
        self.lagging = None
        gap = asked is not None and self._begin_with(asked, result, resumed=resumed)
        self._changed.unpark_all()
        return gap

    def _begin_with(self, asked: Asked, result: Result, *, resumed: bool) -> bool:
        begun = self.position.begin(asked, result)
        self.resumed = resumed
        self._asked, self._answer = asked, result
        self._intact = begun.recovered
        if resumed and begun.recovered is None:
            self._intact = True  # of what it begins with nothing had come yet
        elif not resumed and asked is not Asked.BEGINNING:
            self._intact = None
        self.replaying = asked is not Asked.LIVE or self.beginning.snapshot
        self.recovered = None
        gap = resumed and not begun.told
        if gap:
            self.lose(LostMessages(None, self._gap, None))
        self._gap = "reconnect"
        if not self.replaying:
            self.complete()
        return gap

    def complete(self) -> None:
        """Snapshot and replay are over."""
        if self.replaying:
            self.position.complete(self._answer)
        self.replaying = False
        self.recovered = self._intact
        for subscription in self.subscriptions:
            subscription.tell_complete()

    def pause(self) -> None:
        """The broker sends it no more, until it begins again."""
        self.route = None
        self.asking = False
        self.lagging = None
        self.replaying = False

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

    def check(self, wanted: SubscribeOptions, beginning: Beginning) -> None:
        """Another subscription of the pattern can have the same options only: there is one queue at the broker.

        Those that the first one asked for will do too, whatever was changed since.

        Raises:
            LocalProtocolError: They differ.
        """
        if not beginning.plain:
            raise LocalProtocolError(
                f"this client is already subscribed to {self.pattern!r}, and the broker sends it once; to begin with"
                " 'snapshot' or 'replay' use another client or leave the first subscription first, or ask for the past"
                " alone: client.last(…), client.history(…)",
                code="bad_option",
            )
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

    def receive(self, run: list[Raw], columns: list[tuple[Any, ...]], wire: int = 1 << 62) -> None:
        """Hand a run of messages to every subscription.

        Args:
            run: MESSAGE envelopes of this feed's route.
            columns: The same, transposed.
            wire: Bytes in which they came, or more.

        Raises:
            TypeError, ValueError, OverflowError: They have not the shape of protocol.md; nobody got any.
        """
        _, _, topics, offsets, times, payloads, *_ = columns  # ValueError: one is too short
        # Joining and adding checks all types in C. What stands behind the payload is looked at when it is used.
        size = len(b"".join(payloads))
        numbered = sum(offsets)
        sum(times)
        plain = size + PLAIN_ENVELOPE * len(run)
        if self.wildcard:
            names = len("".join(topics))
            plain += names
            if names > MAX_NAME_BYTES * len(run):
                raise ValueError("topics longer than topics can be")
        if self.replaying:
            if not (run := self._replayed(run)):
                return
            _, _, topics, offsets, _, payloads, *_ = zip(*run, strict=False)
            size = len(b"".join(payloads))
        if numbered:
            array("Q", offsets)  # TypeError, OverflowError: one is no unsigned integer
            self.position.note(topics, offsets)
        if wire > plain:
            run = weighed(run)
        size = weight_of_all(run) if type(run) is WeighedRun else size + MESSAGE * len(run)
        for subscription in tuple(self.subscriptions):
            subscription.receive(self, run, size)

    def _replayed(self, run: list[Raw]) -> list[Raw]:
        """Marked as such; without what has come before the break, if the broker could not know of that."""
        if self._asked is Asked.STATE:
            run = [raw for raw in run if self.position.is_new(raw)]
        return [(raw[0], REPLAYED, *raw[2:]) for raw in run]

    def lose(self, lost: LostMessages) -> None:
        """The broker, or an outage, lost messages of this feed."""
        self.position.note_loss(lost)
        if self.replaying:
            self._intact = False
        for subscription in tuple(self.subscriptions):
            subscription.note_loss(lost)

    def too_large(self, topic: str | None, offset: int, size: int, limit: int) -> None:
        """A message of this feed was larger than the client takes, and was passed over.

        Args:
            topic: Where it was published; None: as the pattern says.
            offset: Its offset; 0: it has none.
            size: Bytes that came.
            limit: Bytes that may come.
        """
        topic = topic or self.pattern
        lost = LostMessages(1, TOO_LARGE, topic, offset or None, offset or None)
        self.position.note_loss(lost)
        if self.replaying:
            self._intact = False
        self._too_large += 1
        if self._too_large & (self._too_large - 1) == 0:  # the 1st, 2nd, 4th … : as many lines as it has digits
            _log.warning(
                "a message of %d bytes on %r is larger than this client takes (max_message_bytes=%d) and was passed"
                " over (so far %d of the subscription of %r)",
                size, topic, limit, self._too_large, self.pattern,
            )  # fmt: skip
        self._tell_too_large(
            lost,
            MessageTooLarge(f"a message of {size} bytes on {topic!r}", topic=topic, offset=offset or None, limit=limit),
        )

    def _tell_too_large(self, lost: LostMessages, error: MessageTooLarge) -> None:
        for subscription in tuple(self.subscriptions):
            subscription.note_too_large(lost, error)

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
