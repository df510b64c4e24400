"""What waits to be sent, and the task that sends it.

Envelopes are gathered into WebSocket messages as they come and go out when the writer task has its turn: under load
many travel in one message, at rest each goes at once. Publishes outlive a connection: those not handed over
completely are sent on the next one, except requests, whose replies would go to the old one. Everything else
(subscribing, pings) belongs to one connection and goes first.
"""

from __future__ import annotations

import os
from collections import deque

import trio

from fanwire.protocol import Ping, encode
from fanwire.protocol.codes import MAX_BATCH
from fanwire.protocol.frames import masked_frame
from fanwire.protocol.masking import Mask, mask_in_python
from fanwire.transport import FrameStream

from ..config import Options
from ..errors import BufferFull, FanwireError
from ..home import Home

# Takes the place of a request that is not to be sent any more, so that all others keep their numbers.
_NOTHING = encode(Ping(0))

# Bytes of a message to a broker that has no limit.
NO_LIMIT = 1 << 62

# A checkpoint costs more than sending a reply does; who sends many passes one now and then.
ENVELOPES_A_CHECKPOINT = 16


class Outgoing:
    """The outgoing side of a client, over all its connections."""

    def __init__(self, options: Options) -> None:
        self._most_messages = options.outgoing_messages
        self._most_bytes = options.outgoing_bytes
        self._raise_on_outage = options.on_outage == "raise"
        self._batch_limit = MAX_BATCH
        self._control: list[bytes] = []
        self._sealed: deque[list[bytes]] = deque()  # whole batches, each one WebSocket message
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._sealed_bytes = 0
        self._in_hand: list[bytes] = []  # the batch being written
        self._frame_in_hand = b""  # the same, as it goes out
        self._bound: dict[int, None] = {}  # numbers of requests, until they are written
        self._budget = ENVELOPES_A_CHECKPOINT
        self._stream: FrameStream | None = None  # while `write` runs
        self._carrier: FrameStream | None = None  # the same, until `lost`
        self._mask: Mask = mask_in_python
        self._work = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()
        self.accepted = 0
        """Publishes taken in so far: also the number of the last one."""
        self.written = 0
        """Publishes handed to the kernel so far. One with a number above this has surely not reached the broker."""
        self.connected = False
        self.outage: FanwireError | None = None
        """Why publishes are refused at the moment, if they are: with ``on_outage="raise"``, and after the end."""
        self.limit = NO_LIMIT
        """Bytes that one envelope may have: the broker's ``max_message``."""
        self.home = Home()
        """Where the client may be called; checked by whatever a program calls, before it touches anything here."""

    # ------------------------------------------------------------ taking in

    def add(self, envelope: bytes) -> int:
        """Take in a publish; return its number.

        Raises:
            BufferFull: Nothing was taken in.
            FanwireError: There is no connection, and none is to be waited for.
        """
        size = len(envelope)
        waiting = self.accepted - self.written
        if waiting >= self._most_messages or (
            waiting and self._open_bytes + self._sealed_bytes + size > self._most_bytes
        ):
            raise BufferFull(waiting, self.waiting_bytes, connected=self.connected)
        if self.outage:
            raise self.outage.with_traceback(None)
        total = self._open_bytes + size
        if total > self._batch_limit and self._open:
            self._seal()
            total = size
        self._open.append(envelope)
        self._open_bytes = total
        self.accepted += 1
        if self._work:
            self._work.unpark()
        return self.accepted

    def _seal(self) -> None:
        self._sealed.append(self._open)
        self._sealed_bytes += self._open_bytes
        self._open = []
        self._open_bytes = 0
        stream = self._stream
        if stream and stream.clear and not stream.close_sent and not self._in_hand and not self._control:
            self._write_through(stream)

    def _write_through(self, stream: FrameStream) -> None:
        """A program that publishes without ever awaiting: a full batch need not wait until it does."""
        try:
            self._hand_over(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader learns of it, too

    def _hand_over(self, stream: FrameStream) -> None:
        """Write the next batch; what the stream does not take at once stays in hand."""
        self._frame_in_hand = self._next_frame()
        try:
            stream.write_nowait(self._frame_in_hand)
        except BaseException:
            self._take_back()
            raise
        if stream.clear:
            self._written_in_hand()

    def _take_back(self) -> None:
        """The batch in hand was not sent: it is the next one again."""
        self._sealed.appendleft(self._in_hand)
        self._in_hand, self._frame_in_hand = [], b""

    def add_at_once(self, envelope: bytes, *, bound: bool = False) -> None:
        """As `add`; and if nothing is in its way it is written now, not when the writer task has its turn.

        Args:
            envelope: A publish.
            bound: Whether it means something on the present connection only: on no other is it sent.
        """
        stream = self._stream
        idle = stream and stream.direct and stream.clear and not stream.close_sent
        if not stream or not idle or self._control or self.accepted != self.written:
            number = self.add(envelope)
            if bound:
                self._bound[number] = None
            return
        self.accepted += 1
        if bound:
            self._bound[self.accepted] = None
        self._open.append(envelope)
        self._open_bytes = len(envelope)
        self._write_through(stream)
        if not stream.clear and self._work:
            self._work.unpark()

    async def send_at_once(self, envelope: bytes) -> None:
        """As `add_at_once`, but waits for room. Passes a checkpoint every `ENVELOPES_A_CHECKPOINT`."""
        self._budget -= 1
        if self._budget < 0:
            self._budget = ENVELOPES_A_CHECKPOINT
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                self.add_at_once(envelope)
                return
            except BufferFull:
                await self._progress.park()

    async def progress(self) -> None:
        """Wait until something was written, or the connection has gone."""
        await self._progress.park()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of publishes that wait."""
        return self._open_bytes + self._sealed_bytes

    async def add_when_possible(self, envelope: bytes) -> int:
        """As `add`, but waits for room. No checkpoint if there is some."""
        while True:
            try:
                return self.add(envelope)
            except BufferFull:
                await self._progress.park()

    def add_control(self, envelope: bytes) -> None:
        """Send on the present connection, before any publish; forgotten when there is none."""
        if self.connected:
            self._control.append(envelope)
            if self._work:
                self._work.unpark()

    def add_control_at_once(self, envelope: bytes) -> None:
        """As `add_control`; and if nothing is in its way it is written now, though the program may not await soon."""
        stream = self._stream
        idle = stream and stream.direct and stream.clear and not stream.close_sent
        if not stream or not idle or self._control or self.accepted != self.written:
            self.add_control(envelope)
            return
        try:
            stream.write_nowait(self._frame(envelope))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader learns of it too
        if not stream.clear and self._work:
            self._work.unpark()

    async def flush(self) -> None:
        """Wait until everything taken in before was handed to the kernel.

        Raises:
            FanwireError: There is no connection, and none is to be waited for.
        """
        target = self.accepted
        await trio.lowlevel.checkpoint()
        while self.written < target:
            if self.outage:
                raise self.outage.with_traceback(None)
            await self._progress.park()

    # -------------------------------------------------------------- writing

    def begin(self, mask: Mask) -> None:
        """A connection begins; what `add_control` takes in goes to it. Publishes wait until `write` runs."""
        self._mask = mask
        self._control.clear()
        self.connected = True

    def limit_to(self, max_message: int | None) -> None:
        """Keep to what the broker takes, in bytes a WebSocket message; None: as much as we like."""
        self.limit = NO_LIMIT if max_message is None else max_message
        self._batch_limit = min(MAX_BATCH, self.limit)

    def lost(self, error: FanwireError) -> None:
        """The connection is gone, and its stream is closed.

        Of the batch in hand, if a part was not written, the broker cannot have seen anything (a message counts when it
        is whole): it is sent again. If all was written, it is never sent again, whoever has written the rest: it may
        have been a pong, or the close frame, that went behind it.

        Args:
            error: Why.
        """
        self.connected = False
        self._control.clear()
        if self._in_hand and self._is_left():
            self._take_back()
        elif self._in_hand:
            self._written_in_hand()
        self._carrier = None
        self._drop_bound()
        self.outage = error if self._raise_on_outage else None
        self._progress.unpark_all()

    def _is_left(self) -> bool:
        """Whether the stream holds a rest of the batch in hand that it did not write."""
        left = self._carrier.left if self._carrier else b""
        return left is self._frame_in_hand or (isinstance(left, memoryview) and left.obj is self._frame_in_hand)

    def _drop_bound(self) -> None:
        """What was for the connection that went is not sent on the next one."""
        if not self._bound:
            return
        number = self.written
        for batch in (*self._sealed, self._open):
            for at in range(len(batch)):
                number += 1
                if number in self._bound:
                    batch[at] = _NOTHING
        self._bound.clear()
        self._sealed_bytes = sum([len(envelope) for batch in self._sealed for envelope in batch])
        self._open_bytes = sum(map(len, self._open))

    def close(self, error: FanwireError) -> None:
        """No connection will come any more."""
        self._sealed.clear()
        self._open.clear()
        self.outage = error
        self._progress.unpark_all()

    async def write_control(self, stream: FrameStream) -> None:
        """Send what `add_control` took in, now: the first envelopes of a connection, before its writer runs."""
        while self._control:
            await stream.send_all(self._frame(self._take_control()))

    @trio.lowlevel.enable_ki_protection
    async def write(self, stream: FrameStream) -> None:
        """The writer task of one connection; ends when the stream does."""
        self._stream = self._carrier = stream
        self.outage = None
        try:
            while not stream.close_sent:  # nothing goes after it
                if not stream.clear:
                    await stream.send_all(b"")  # finishes what was left half written
                    if self._in_hand:
                        self._written_in_hand()
                elif self._control or self._sealed or self._open:
                    await self._write_batch(stream)
                else:
                    await self._work.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._stream = None

    async def _write_batch(self, stream: FrameStream) -> None:
        if self._control:
            await stream.send_all(self._frame(self._take_control()))
            return
        self._hand_over(stream)
        await trio.lowlevel.checkpoint()

    def _take_control(self) -> bytes:
        """As many whole envelopes as go into one WebSocket message."""
        size = taken = 0
        for envelope in self._control:
            size += len(envelope)
            if taken and size > self._batch_limit:
                break
            taken += 1
        batch = b"".join(self._control[:taken])
        del self._control[:taken]
        return batch

    def _next_frame(self) -> bytes:
        if self._sealed:
            self._in_hand = self._sealed.popleft()
        else:
            self._in_hand, self._open = self._open, []
            self._sealed_bytes += self._open_bytes
            self._open_bytes = 0
        return self._frame(b"".join(self._in_hand))

    def _frame(self, payload: bytes) -> bytes:
        return masked_frame(payload, os.urandom(4), self._mask)

    def _written_in_hand(self) -> None:
        batch, self._in_hand, self._frame_in_hand = self._in_hand, [], b""
        self.written += len(batch)
        while self._bound and next(iter(self._bound)) <= self.written:
            del self._bound[next(iter(self._bound))]
        self._sealed_bytes -= sum([len(envelope) for envelope in batch])
        if self._progress:
            self._progress.unpark_all()
