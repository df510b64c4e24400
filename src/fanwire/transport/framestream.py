"""`FrameStream`: the stream under trio-websocket that takes whole data frames out itself.

trio-websocket's reader task calls `receive_some`; on the way whole binary messages are handed to the application in one
batch for each read of the socket. Handshake, control frames, fragments and text go through to trio-websocket. In the
other direction frames of ours and trio-websocket's share the socket without ever landing inside each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import trio

from fanwire.protocol.frames import (
    Fault,
    FrameSplitter,
    Opcode,
    TooLarge,
    close_payload,
    end_of_frame,
    frame_header,
    masked_frame,
)
from fanwire.protocol.masking import Mask, mask_in_python

from .writers import TaskWriter, take_over

# How much one read asks for. It grows while reads come back full and shrinks again: under load one read holds
# hundreds of publishes (that is the batch), an idle connection asks for little.
LEAST_READ = 4 * 1024
MOST_READ = 256 * 1024

_END_OF_HEAD = b"\r\n\r\n"
_CLOSE_FRAME = bytes((0x80 | Opcode.CLOSE,))
_NONE = -1

# Response heads over this are no fanwire broker's. (h11's default limit is 16 KiB.)
MOST_HEAD = 64 * 1024

# Bytes that are read of a refusal's body. An error message quotes a few hundred.
MOST_REFUSAL = 16 * 1024

Hold = Callable[[], Coroutine[Any, Any, None]]
OnMessages = Callable[[list[bytes]], "Hold | None"]


class FrameStream(trio.abc.Stream):
    """Owns a byte stream on which WebSocket is spoken; `trio_websocket.wrap_server_stream` gets this.

    Hand what trio-websocket's ``get_message`` returns to the same handler as ``on_messages``: those are the messages
    of the slow road.
    """

    __slots__ = (
        "_ask",
        "_client",
        "_closed",
        "_closing",
        "_head",
        "_kept_back",
        "_key",
        "_linger_s",
        "_lock",
        "_mask",
        "_more",
        "_on_messages",
        "_on_too_large",
        "_opened",
        "_receive",
        "_splitter",
        "_stream",
        "_unfinished_since",
        "_unfinished_step",
        "_writer",
        "before_close",
        "bytes_received",
        "clear",
        "close_sent",
        "direct",
        "left",
        "progress",
        "queued",
        "refusal",
        "refused_body",
        "refused_head",
        "send",
        "why_closing",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        client: bool,
        max_message: int,
        on_messages: OnMessages,
        mask: Mask = mask_in_python,
        key: Callable[[], bytes] | None = None,
        head: bytes = b"",
        rest: bytes = b"",
        linger_s: float = 1.0,
        on_too_large: Callable[[TooLarge], None] | None = None,
    ) -> None:
        """Take over ``stream``: close this instead, and do not use that one any more.

        Args:
            stream: Any trio stream.
            client: Whose end this is.
            max_message: Bytes that one received message may have.
            on_messages: Called with the messages of one read, in order, never with none. Must not block. What it
                returns, if anything, is called and awaited before more is read: so one stops reading for a while.
            mask: See `fanwire.protocol.masking`.
            key: Clients: makes a fresh masking key for a frame.
            head: Server: the request head, already read.
            rest: Server: what was read after it.
            linger_s: How long a refused peer may take to read why, in seconds.
            on_too_large: Called, in its place among the messages, for one over ``max_message`` that was passed over.
                None: such a message is refused with 1009.
        """
        self._stream, self._writer = take_over(stream)
        self._client = client
        self._on_too_large = on_too_large
        skips = on_too_large is not None
        self._splitter = FrameSplitter(client=client, max_message=max_message, mask=mask, skips=skips)
        self._on_messages = on_messages
        self._mask = mask
        self._key = key
        self._head = head
        if rest:
            self._splitter.feed(rest)
        self._linger_s = linger_s
        self._opened: trio.Event | None = None if client else trio.Event()
        self._ask = LEAST_READ
        self._kept_back = b""
        self._more = False  # whether the last read was a full one: there may be more already
        self._lock: trio.StrictFIFOLock | None = None
        self._closed = False
        self._closing: trio.Event | None = None
        self.close_sent = False
        """Whether a close frame was sent: no data frame may follow it (RFC 6455 section 5.5.1)."""
        self._unfinished_step = _NONE
        self._unfinished_since = 0.0
        # Functions, not methods bound to this object: that would be a circle, and only the collector could free it.
        self._receive: Callable[[FrameStream], Coroutine[Any, Any, bytes]] = (
            FrameStream._receive_response_head if client else FrameStream._receive_frames
        )
        self.why_closing: Callable[[], Fault | None] = lambda: None
        """Set by the owner: asked at `aclose` which close frame to send if none was sent yet (None: none)."""
        self.before_close: Callable[[], None] = lambda: None
        """Set by the owner: called before a close frame goes out, for what must be written now or never."""
        self.direct = not isinstance(self._writer, TaskWriter)
        """Whether `write_nowait` writes anything without a task."""
        self.send: Callable[[bytes], int] | None = getattr(self._writer, "send", None)
        """Sockets: the socket's own, for a caller that counts every call (see `keep`)."""
        self.clear = True
        """Whether `write_nowait` may be called: nothing is half written, nobody is sending, nothing is queued."""
        self.queued = False
        """Set by the owner while it has something waiting that must go before any later `write_nowait`."""
        self.left: memoryview | bytes = b""
        """What the stream has not taken of the last write. It goes before anything else."""
        self.bytes_received = 0
        self.progress = 0
        """Bytes taken by a stream that had refused more: a sign of life, as received bytes are."""
        self.refusal: Fault | None = None
        """Why the peer was refused, if it was."""
        self.refused_head = b""
        """Client: the head of the response that refused the handshake, if one did."""
        self.refused_body = b""
        """Client: the beginning of its body, as it came."""

    def open(self) -> None:
        """Server: the handshake was answered; frames are read from now on."""
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    @property
    def messages_received(self) -> int:
        """Messages begun so far."""
        return self._splitter.messages

    def allow(self, max_message: int) -> None:
        """From now on one received message may have so many bytes."""
        self._splitter.limit = max_message

    def read_little(self) -> None:
        """Ask for little at the next read: the peer sends more than it is wanted to."""
        self._ask, self._more = LEAST_READ, False

    def unfinished_since(self) -> float | None:
        """Since when (trio's clock) the peer owes us the rest of one and the same message; None: it owes nothing."""
        return None if self._unfinished_step == _NONE else self._unfinished_since

    # -------------------------------------------------------------- receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Called by trio-websocket's reader task: bytes that are for it; b"" at the end. ``max_bytes`` is ignored."""
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._opened is not None:  # nothing after the request's head before the handshake was answered
            await self._opened.wait()
        return await self._receive(self)

    async def _receive_response_head(self) -> bytes:
        """Client: the response head; what came with it is frames already (trio-websocket would lose them)."""
        received = bytearray()
        while (end := received.find(_END_OF_HEAD)) < 0:
            data = await self._stream.receive_some(LEAST_READ)
            if not data:
                return b""
            received += data
            if len(received) > MOST_HEAD:
                raise trio.BrokenResourceError(f"response head over {MOST_HEAD} bytes: that is no WebSocket server")
        if not received.startswith(b"HTTP/1.1 101"):
            end += len(_END_OF_HEAD)
            self.refused_head, self.refused_body = bytes(received[:end]), bytes(received[end:])
            self._receive = FrameStream._receive_refusal  # a body is not frames
            return bytes(received)
        end += len(_END_OF_HEAD)
        self._splitter.feed(bytes(received[end:]))
        self._receive = FrameStream._receive_frames
        return bytes(received[:end])

    async def _receive_refusal(self) -> bytes:
        """Client: what a refusal says, as far as anybody will read it. A longer one ends here."""
        room = MOST_REFUSAL - len(self.refused_body)
        if room <= 0:
            return b""
        data = bytes(await self._stream.receive_some(min(room, LEAST_READ)))
        self.refused_body += data
        return data

    async def _receive_frames(self) -> bytes:
        splitter = self._splitter
        while True:
            if self._kept_back:
                passed, self._kept_back = self._kept_back, b""
            else:
                messages: list[bytes] = []
                passed = splitter.take(messages)
                hold = self._on_messages(messages) if messages else None
                messages = []  # while this waits, for as long as that may be, it keeps nothing of what was read
                if hold is not None:
                    self._unfinished_step = _NONE  # it is not the peer who makes us wait now
                    await hold()
                    hold = None
            if splitter.too_large is not None and self._on_too_large is not None:
                self._on_too_large(splitter.too_large)
                splitter.too_large = None
                if not passed:
                    continue
            if passed:
                await trio.lowlevel.checkpoint()  # a read full of pongs must not keep everybody else waiting
                return self._in_two(passed)
            if splitter.fault:
                return await self._refuse(splitter.fault)
            if splitter.flooded:
                self.read_little()
            data = await self._read()
            if not data:
                return b""
            if not splitter.peer_closed:
                splitter.feed(data)
            data = b""  # see `messages`

    def _in_two(self, passed: bytes) -> bytes:
        """Of much that is for trio-websocket the last byte comes by itself: its reader, and wsproto, keep what they
        were given last until there is more, and a connection at rest must not cost a whole read."""
        if len(passed) <= LEAST_READ:
            return passed
        self._kept_back = passed[-1:]
        return passed[:-1]

    async def _read(self) -> bytes:
        """One read, as large as the last ones suggest."""
        splitter = self._splitter
        if not splitter.unfinished:
            self._unfinished_step = _NONE
        elif self._unfinished_step != splitter.steps:
            self._unfinished_step, self._unfinished_since = splitter.steps, trio.current_time()
        receive = self._stream.receive_some if self._more else self._writer.receive
        data = await receive(self._ask)
        size = len(data)
        self.bytes_received += size
        self._more = size == self._ask
        if self._more:
            self._ask = min(self._ask * 4, MOST_READ)
        elif size * 4 < self._ask:
            self._ask = max(self._ask // 2, LEAST_READ)
        return bytes(data)

    async def _refuse(self, fault: Fault) -> bytes:
        """Say why, give the peer a moment to read it, end the input."""
        self.refusal = fault
        with trio.move_on_after(self._linger_s):
            await self.send_close(fault)
            await self._drain_input()
        return b""

    # ---------------------------------------------------------------- sending

    def write_nowait(self, data: bytes) -> None:
        """Write whole frames: what goes at once goes, the rest is `left`. Only while `clear`.

        After calling this you must see to it that `finish` is called if `clear` has become False.

        Raises:
            trio.BrokenResourceError: The peer is gone.
            trio.ClosedResourceError: This stream was closed.
        """
        taken = self._writer.accept(data)
        if taken != len(data):
            self.keep(data, taken)

    def keep(self, data: bytes, taken: int) -> None:
        """Remember the rest of whole frames of which the stream took ``taken`` bytes."""
        self.left = memoryview(data)[taken:]
        self.clear = False

    async def finish(self) -> None:
        """Wait until `left` has gone. Only while holding `sending`, or when nobody else sends."""
        while self.left:
            await self.push()

    async def push(self, load: Callable[[], None] | None = None) -> None:
        """Wait until at least one byte of `left` has gone.

        Args:
            load: Called as soon as the stream is ready, if nothing is left then: it may set `left` to more whole
                frames.
        """
        taken = await self._writer.push(partial(self._rest, load))
        self.progress += taken
        self.left = memoryview(self.left)[taken:] if taken < len(self.left) else b""

    def _rest(self, load: Callable[[], None] | None) -> bytes | memoryview:
        if not self.left and load is not None:
            load()
        return self.left

    def sending(self) -> trio.StrictFIFOLock:
        """The lock under which everything that has to wait for the stream is sent, whole frames at a time."""
        if self._lock is None:
            self._lock = trio.StrictFIFOLock()
        return self._lock

    def keep_half_written(self) -> None:
        """Drop from `left` all but the rest of the frame that is already partly on its way."""
        whole = self.left if isinstance(self.left, bytes) else self.left.obj
        assert isinstance(whole, bytes)
        gone = len(whole) - len(self.left)
        self.left = memoryview(whole)[gone : end_of_frame(whole, gone + self._writer.in_hand)]

    def buffer_little(self, size: int) -> None:
        """Let the kernel buffer about ``size`` bytes at most, a quarter of them unsent: what lies there can't be taken
        back. Streams without a kernel's buffer do nothing."""
        self._writer.buffer_little(size)

    def in_flight(self) -> int:
        """Bytes written that the peer's kernel has not acknowledged, as far as the stream can tell (else 0)."""
        return self._writer.in_flight()

    def acknowledged(self) -> int | None:
        """Bytes that the peer's kernel has acknowledged so far, below TLS; None: the stream cannot tell."""
        return self._writer.acknowledged()

    def settle(self) -> None:
        """Recompute `clear`, after `queued` changed or a send has ended."""
        held = self._lock is not None and self._lock.locked()
        self.clear = not (self.left or self.queued or self._closed or self.close_sent or held)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole frames: they wait for their turn, never inside another frame. trio-websocket calls this, too.

        Cancelled, nothing of ``data`` was written, or it was begun and its rest is `left`: what was written as a whole
        is never reported as cancelled.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._send(data)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self.close_sent:  # pongs, and trio-websocket's own answer to the peer's close frame
            await trio.lowlevel.checkpoint()
            return
        whole = bytes(data)
        self._note_close_frame(whole)
        if self.clear:
            self.write_nowait(whole)
            if self.clear:
                self.settle()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            whole = b""
        try:
            async with self.sending():
                self.clear = False
                await self.finish()
                if whole:
                    self.left = whole
                    await self.finish()
        finally:
            self.settle()

    def _note_close_frame(self, data: bytes) -> None:
        if data[:1] == _CLOSE_FRAME and not self.close_sent:
            self.before_close()
            self.close_sent = self._splitter.closing = True

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    # ---------------------------------------------------------------- closing

    async def aclose(self) -> None:
        """Close; before that, unless cancelled, tell a peer that broke the protocol so, and let it read that.

        trio-websocket cuts the connection without a close frame when a peer breaks RFC 6455.
        """
        if self._closing is not None:  # another task is at it, or was
            await self._closing.wait()
            await self._stream.aclose()
            return
        self._closing = trio.Event()
        try:
            with trio.move_on_after(self._linger_s):
                if not self.close_sent and (fault := self.why_closing()):
                    self.refusal = fault
                    await self.send_close(fault)
                if self.close_sent:
                    await self._drain_input()
        finally:
            self._closed = True
            self.clear = False
            self._closing.set()
            await self._stream.aclose()

    async def send_close(self, fault: Fault) -> None:
        """Send a close frame, if none was sent; nothing can be sent after it. Go on reading until the peer answers.

        (trio-websocket must not send it: between its decision to and the frame it may still be asked for a pong, and
        falls over that.)
        """
        if self.close_sent or self._closed:
            return
        payload = close_payload(*fault)
        try:
            if self._client:
                await self._send(masked_frame(payload, self._make_key(), opcode=Opcode.CLOSE))
            else:
                await self._send(frame_header(len(payload), Opcode.CLOSE) + payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whom should we tell

    def _make_key(self) -> bytes:
        return self._key() if self._key else os.urandom(4)

    async def _drain_input(self) -> None:
        """Half-close and read on: closing a socket with unread input resets it, and the peer never sees why."""
        try:
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(LEAST_READ):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
