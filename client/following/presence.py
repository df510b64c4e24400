"""Who is subscribed to what: asked for once, or followed.

A list comes in pages, and events may come between them; both are taken in by the reader, in the order in which they
come: whoever is in a page, and in no event after it, is there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeAlias

import attrs
import trio

from fanwire.protocol import Presence, PresenceEvent, SubscribeOptions, check_pattern, encode
from fanwire.protocol.fields import shown
from fanwire.protocol.reserved import PRESENCE

from ..answer_fields import field_of, not_in_protocol, number_of, word_of
from ..checks import LONGEST_S
from ..errors import ConnectionLost, FanwireError, RequestFailed
from ..exchange.answers import Requests, Result
from ..exchange.outgoing import Outgoing
from ..notices import LostMessages
from ..subscribing.buffer_options import BufferOptions
from ..subscribing.position import Beginning
from ..subscribing.subscription import Subscription
from ..subscribing.wire_subscriptions import Feeds

Ask: TypeAlias = Callable[[Presence], Awaitable[Result]]


# Members that a watch remembers, at some 500 bytes each. One more ends it.
MAX_MEMBERS = 200_000


@attrs.frozen
class Member:
    """A client that is subscribed to a pattern. Equal to itself over reconnects."""

    pattern: str
    """What it is subscribed to."""
    session: str = attrs.field(eq=False)
    """The broker's name for its connection, the newest if it has several."""
    name: str | None = attrs.field(eq=False)
    """What it calls itself; nobody has proved that."""
    client: str
    """What the broker calls the client, however often it reconnects."""


def _member(listed: Any) -> Member:
    """Of a page's row."""
    row = listed if isinstance(listed, list | tuple) and len(listed) >= 4 else [None] * 4
    pattern, session, client = word_of(row[0]), word_of(row[1]), word_of(row[3])
    name = None if row[2] is None else word_of(row[2]) or ""
    if pattern is None or session is None or client is None:
        raise not_in_protocol("PRESENCE", f"a member is {shown(listed)}")
    return Member(pattern, session, name, client)


def _page(result: Result) -> tuple[list[Member], int | None]:
    """A page, and where the next one begins. Raises `ConnectionLost` if it is none."""
    listed, following = field_of("PRESENCE", result, "members", (list, tuple)), result.get("next")
    if following is not None:
        field_of("PRESENCE", result, "next", int)
    return [_member(each) for each in listed], following


def _too_many(pattern: str) -> RequestFailed:
    text = f"more than {MAX_MEMBERS:,} members are subscribed to what overlaps {pattern!r}"
    return RequestFailed("too_many", text, {})


async def members(ask: Ask, pattern: str) -> list[Member]:
    """See `Client.presence`."""
    found: dict[Member, None] = {}
    after: int | None = None
    while True:
        before = after
        page, after = _page(await ask(Presence(1, pattern, after)))
        found |= dict.fromkeys(page)
        if after is None:
            return list(found)
        if len(found) > MAX_MEMBERS:
            raise _too_many(pattern)
        if before is not None and after <= before:
            raise not_in_protocol("PRESENCE", f"the page after {before} is followed by the one after {after}")


class PresenceWatch:
    """Use it as a context manager, then iterate over it: pairs of a `Member` and whether it is present.

    ::

        async with client.watch_presence("rooms.*") as watch:
            async for member, present in watch:
                ...

    Those who are there already come first. What is given is a state: no member comes twice in the same one, and who
    comes and goes while you are busy is not mentioned. Over a lost connection all stays as it was; the next one brings
    the differences, and who is missing then has as long to come back as the broker gives everybody.
    """

    def __init__(self, feeds: Feeds, requests: Requests, outgoing: Outgoing, pattern: str) -> None:
        """Made by `Client.watch_presence`."""
        self._requests = requests
        self._outgoing = outgoing
        self._subscription = _Watching(self, feeds, check_pattern(PRESENCE + pattern))
        self._begun = False
        self._listing: _Listing | None = None
        self._present: dict[Member, Member] = {}
        self._given: dict[Member, Member] = {}
        self._changed: OrderedDict[Member, None] = OrderedDict()
        self._doubtful: dict[Member, None] = {}
        self._doubt_ends = math.inf
        self._arrived = trio.lowlevel.ParkingLot()
        self.pattern = pattern
        """What changes are told of."""

    async def __aenter__(self) -> PresenceWatch:
        """Begin to watch; returns once the broker has said yes. Raises as `Subscription` does."""
        await self._subscription.__aenter__()
        if not self._begun:
            self.list_anew()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._subscription.__aexit__(kind, error, traceback)

    def __aiter__(self) -> PresenceWatch:
        return self

    async def __anext__(self) -> tuple[Member, bool]:
        """The next change. Raises as `Subscription` does."""
        self._subscription.check_entered()
        await trio.lowlevel.checkpoint()
        while True:
            while self._changed:
                if (change := self._change(self._changed.popitem(last=False)[0])) is not None:
                    return change
            self._subscription.raise_if_ended()
            with trio.move_on_at(self._doubt_ends) as scope:
                await self._arrived.park()
            if scope.cancelled_caught:
                self._end_doubts()

    def _change(self, member: Member) -> tuple[Member, bool] | None:
        present, given = self._present.get(member), self._given.get(member)
        if (present is None) == (given is None):
            return None
        if present is not None:
            self._given[present] = present
            return present, True
        assert given is not None
        del self._given[given]
        return given, False

    def stop(self) -> None:
        """The subscription has ended."""
        self._listing = None
        self._arrived.unpark_all()

    # ------------------------------------------------ what the broker says

    def take(self, event: PresenceEvent) -> None:
        """Somebody came or went."""
        member = Member(event.topic, event.session, event.name, event.client or event.session)
        if event.change == "join":
            self._add(member)
        else:
            self._doubtful.pop(member, None)
            self._present.pop(member, None)
            self._note(member)
        self._arrived.unpark_all()

    def _add(self, member: Member) -> None:
        self._doubtful.pop(member, None)
        if self._listing is not None:
            self._listing.seen[member] = None
        self._present[member] = member
        self._note(member)
        if len(self._present) > MAX_MEMBERS:
            self._subscription.end(_too_many(self.pattern))

    def _note(self, member: Member) -> None:
        if (member in self._present) != (member in self._given):
            self._changed[member] = None
        else:
            self._changed.pop(member, None)

    # ------------------------------------------------------------- listing

    def list_anew(self) -> None:
        """Events were missed, or it begins: ask for the list."""
        if not self._outgoing.connected:
            return  # the next connection begins with it
        self._begun = True
        self._listing = _Listing(self)
        self.ask(self._listing, None)

    def ask(self, listing: _Listing, after: int | None) -> None:
        """Ask for a page."""
        number = self._requests.number()
        self._requests.expect(number, listing)
        self._outgoing.add_control(encode(Presence(number, self.pattern, after)))

    def take_page(self, listing: _Listing, result: Result) -> None:
        """A page has come. Raises ValueError if it is none: the connection ends."""
        if listing is not self._listing:
            return  # events were missed since
        try:
            page, after = _page(result)
        except ConnectionLost as error:
            raise ValueError(str(error)) from None
        if after is not None and after <= listing.at:
            raise ValueError(f"the page after {listing.at} is followed by the one after {after}")
        listing.at = after or 0
        for member in page:
            self._add(member)
        if after is not None:
            self.ask(listing, after)
        else:
            self._listing = None
            self._doubt(listing, result.get("grace"))
        self._arrived.unpark_all()

    def _doubt(self, listing: _Listing, grace: object) -> None:
        """Who is in no page has gone; or comes back, as we did, when the broker was away."""
        missing = [member for member in self._present if member not in listing.seen]
        self._doubtful = dict.fromkeys(missing)
        grace_s = min(number_of(grace) or 0, LONGEST_S)
        self._doubt_ends = trio.current_time() + grace_s if missing else math.inf

    def _end_doubts(self) -> None:
        doubtful, self._doubtful, self._doubt_ends = self._doubtful, {}, math.inf
        if self._listing is not None or not self._outgoing.connected:
            return  # another list is to come
        for member in doubtful:
            self._present.pop(member, None)
            self._note(member)

    def fail(self, listing: _Listing, error: FanwireError) -> None:
        """The broker does not give the list."""
        if listing is self._listing and isinstance(error, RequestFailed):
            self._subscription.end(error)
        # else the connection went: the next one begins with a list


class _Listing:
    """One list, page by page. Waits for the answers (see `Waiter`)."""

    def __init__(self, watch: PresenceWatch) -> None:
        self._watch = watch
        self.seen: dict[Member, None] = {}
        self.at = -1
        """Where the last page began."""

    def answered(self, number: int, result: Result) -> None:
        self._watch.take_page(self, result)

    def failed(self, number: int, error: FanwireError) -> None:
        self._watch.fail(self, error)


class _Watching(Subscription):
    """The subscription of a watch: no messages, but events."""

    def __init__(self, watch: PresenceWatch, feeds: Feeds, pattern: str) -> None:
        options = BufferOptions(BufferOptions.BUFFER, BufferOptions.BUFFER_BYTES, "disconnect", False)
        super().__init__(
            feeds, pattern, SubscribeOptions(), options, Beginning(recover=False), comes_back="resume"
        )  # fmt: skip
        self._watch = watch

    def note_presence(self, event: PresenceEvent) -> None:
        """See `Subscription`."""
        if self._error is None:
            self._watch.take(event)

    def note_loss(self, lost: LostMessages) -> None:
        """Either the connection is another one, or the broker could not tell all."""
        super().note_loss(lost)
        self._watch.list_anew()

    def end(self, error: FanwireError, *, at_once: bool = False) -> None:
        """See `Subscription`."""
        super().end(error, at_once=at_once)
        self._watch.stop()
