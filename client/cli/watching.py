"""Keeps a board up to date and shows it: what `fanwire watch` and `fanwire demo` have in common."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import trio

from fanwire.client import Client, Message, SlowConsumer, Subscription, Undecodable
from fanwire.protocol import NO_LIMIT

from .board import Board
from .connection_news import leave_the_screen_alone
from .output import Output
from .plain_table import plain_table

_FRAME_S = 0.1  # a live table is drawn ten times a second: more is flicker


class Display(Protocol):
    """Something that shows a board."""

    interval_s: float
    """How often it wants to."""

    def shown(self) -> AbstractContextManager[None]:
        """Around the whole time of showing."""

    async def draw(self, board: Board, now: float, state: str) -> None:
        """Show it as it is now."""


class PlainDisplay:
    """A table of plain text, again and again, with an empty line between."""

    def __init__(self, output: Output, interval_s: float) -> None:
        self._output = output
        self.interval_s = interval_s

    def shown(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    async def draw(self, board: Board, now: float, state: str) -> None:
        """Print the table; the state only where it is not the usual one."""
        note = "" if state in ("connected", "closed") else f"{state}\n"
        await self._output.write(f"{note}{plain_table(board, now)}\n\n")


class LiveDisplay:
    """A live table on a terminal."""

    def __init__(self, title: str) -> None:
        from .live_table import LiveTable  # brings rich, which a pipe does not need

        leave_the_screen_alone()
        self._table = LiveTable(title)
        self.interval_s = _FRAME_S

    def shown(self) -> AbstractContextManager[None]:
        """Hides the cursor meanwhile."""
        return self._table.shown()

    async def draw(self, board: Board, now: float, state: str) -> None:
        """Draw the table in its place."""
        self._table.draw(board, now, state)
        await trio.lowlevel.checkpoint()


def display_for(title: str, *, plain: bool, interval_s: float) -> Display:
    """A live table where there is a terminal, unless plain text is asked for."""
    output = Output()
    if plain or not output.is_terminal:
        return PlainDisplay(output, interval_s)
    return LiveDisplay(title)


class Watch:
    """One board, fed by a client's subscriptions.

    Args:
        max_rate: messages a second of each topic that are wanted at most. None by default: the table is drawn ten times
            a second whatever comes, and counts what comes, which a rate would hide.
        field: where a message's price is; see `quote_of`.
    """

    def __init__(self, max_rate: float | None = None, field: str | None = None) -> None:
        self._max_rate = max_rate
        self.board = Board(trio.current_time(), field=field)
        self._subscriptions: dict[str, Subscription] = {}
        self._lost_before = 0
        self._state = "connected"

    async def follow(
        self, client: Client, pattern: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take in all messages of a pattern, for as long as it is left to.

        A table of the latest prices need not end because it fell behind: the broker keeps the newest of each topic; a
        broker that ends it all the same is subscribed to anew, and the table says so.
        """
        while True:
            try:
                # Here, at this end, old prices may be dropped for new ones; they are counted as lost.
                async with client.subscribe(
                    pattern, queue=NO_LIMIT, on_slow="conflate", max_rate=self._max_rate, on_full="drop_oldest"
                ) as subscription:
                    self._subscriptions[pattern] = subscription
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._take_all(subscription)
            except SlowConsumer:
                self.board.fell_behind += 1
                self._lost_before += self._subscriptions.pop(pattern).lost

    async def _take_all(self, subscription: Subscription) -> None:
        async for messages in subscription.batches():
            now = trio.current_time()
            for message in messages:
                self.board.take(message.topic, _data_of(message), now)

    async def follow_state(self, client: Client) -> None:
        """Know how the connection is."""
        async for state in client.states():
            self._state = state

    async def show(self, display: Display) -> None:
        """Show the board at the display's interval, until cancelled; and once more then."""
        with display.shown():
            try:
                while True:
                    await trio.sleep(display.interval_s)
                    await self._draw(display)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._draw(display)

    async def _draw(self, display: Display) -> None:
        self.board.lost = self._lost_before + sum(one.lost for one in self._subscriptions.values())
        await display.draw(self.board, trio.current_time(), self._state)


def _data_of(message: Message) -> object:
    try:
        return message.data
    except Undecodable:  # its publisher's fault: counted, without a price
        return None
