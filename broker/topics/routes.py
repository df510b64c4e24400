"""Routes: one number, one encoding for everybody who subscribed to the same pattern (protocol.md, Routes).

A publish becomes a `Chunk` of its route, bytes that every subscriber of the route gets as they are.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgpack

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.fastpath import Gathering

from ..store.interface import EMPTY_BIN
from .chunks import Chunk, KeyedChunk
from .echo import Echoes
from .takers import Inlet, Listener, Taker

if TYPE_CHECKING:
    from ..store.interface import Kept, Run, Stored

Append: TypeAlias = Callable[[bytes], None]


_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb

_MESSAGE = b"\x13"
_NIL = b"\xc0"
_NO_OFFSET = b"\x00"
_UINT32, _UINT64 = b"\xce", b"\xcf"
_UINT32_CODE = _UINT32[0]
_MAX_UINT32 = 0xFFFFFFFF
_pack_uint32 = struct.Struct(">BI").pack
# From how many messages on slices are quicker than a loop.
_LONG = 8
_BYTES = [bytes((byte,)) for byte in range(256)]

# A MESSAGE with meta has so many; and the meta of a retained one, without and with the encoding of raw bytes before it.
_MOST_ELEMENTS = 8
_RETAINED = _pack({"retained": True})
_RAW_RETAINED = b"\x00" + _RETAINED

_STAMP = len(_UINT64) + 8
_LENGTH_OF_OFFSET = {0x00: 1, 0xCE: 5, 0xCF: 9}
_PLAIN_ELEMENTS = 6
_BEFORE_PAYLOAD = 5
_LENGTH_OF_BIN = {0xC4: 1, 0xC5: 2, 0xC6: 4}

_ARRAYS = [bytes((0x90 | size,)) for size in range(16)]


In = TypeVar("In", bound=Inlet)
Sub = TypeVar("Sub", bound=Listener)


class Topic(Gathering, Generic[In, Sub]):
    """A topic's name and the routes that match it. `Registry` owns these and keeps them fresh."""

    __slots__ = ("fresh", "kept", "name", "packed", "publisher_wait_s", "routes")

    def __init__(self, name: str, publisher_wait_s: float | None = None, kept: Kept | None = None) -> None:
        super().__init__()
        self.name = name
        self.kept = kept
        """What it remembers, if it does."""
        self.publisher_wait_s = publisher_wait_s
        """How long a publish may wait while a subscriber lags; None: not at all."""
        self.packed: bytes = _pack(name)
        self.routes: list[Route[In, Sub]] = []
        self.fresh = -1
        """The registry's version that `routes` belongs to."""

    @property
    def lagging(self) -> int:
        """How many of its subscriptions lag; a queue group counts as one."""
        lagging = sum([route.lagging for route in self.routes])
        return sum([route.behind for route in self.routes]) if lagging else 0


class Route(Generic[In, Sub]):
    """Everybody who subscribed to one pattern; with a queue group: see `GroupRoute`."""

    __slots__ = (
        "_appends",
        "_prefix",
        "_silent",
        "_start",
        "direct",
        "gathered_in",
        "lagging",
        "number",
        "outboxes",
        "pattern",
        "pulse",
        "takers",
        "wildcard",
    )

    group: str | None = None
    """The queue group."""

    def __init__(self, number: int, pattern: str, wildcard: bool) -> None:
        self.number = number
        self.pattern = pattern
        self.wildcard = wildcard
        self.outboxes: dict[In, Sub] = {}
        self.direct: dict[In, Sub] = {}
        """Those who get what is published as it comes. A dict: a set takes one in without asking for hashes."""
        self.takers: list[Taker] = []
        """Of those who get it at a rate of their own, or later, or not what they published themselves. And `pulse`."""
        self.pulse: Taker | None = None
        """While somebody wants to be told of silence."""
        self.gathered_in = -1
        """The sweep that `direct` are noted for already."""
        self.lagging = 0
        """How many of the subscriptions lag."""
        self._appends: list[Append] | None = None
        self._silent = False  # whether anybody may have asked for no echo
        self._prefix: bytes = _MESSAGE + _pack(number)
        self._start = self._start_of(_PLAIN_ELEMENTS)

    def add(self, outbox: In, subscription: Sub) -> None:
        """From now on messages go to this outbox too; if they did, it may have got (or lost) a limiter."""
        self.outboxes[outbox] = subscription
        self._silent = self._silent or not subscription.echo
        self._forget_lists()

    def remove(self, outbox: In) -> None:
        """The contrary; what waits in the outbox is the outbox's business."""
        del self.outboxes[outbox]
        self._forget_lists()

    def watch(self, pulse: Taker | None) -> None:
        """Have it told of what is published from now on."""
        self.pulse = pulse
        self._forget_lists()

    def _forget_lists(self) -> None:
        """They hold those who were there, and perhaps nothing is ever published here again. New ones, for a publish may
        be walking over the old ones."""
        self.gathered_in, self._appends = -1, None
        self.takers, self.direct = [], {}

    @property
    def lingers(self) -> bool:
        """Whether it goes on for a while when nobody is left."""
        return False

    @property
    def behind(self) -> int:
        """How many subscribers a publisher is told to be lagging."""
        return self.lagging

    def audience(self, source: In | None) -> int:
        """How many subscriptions a publish reaches that comes from ``source``."""
        mine = None if source is None else self.outboxes.get(source)
        return len(self.outboxes) - (mine is not None and not mine.echo)

    def note_lost(self, subscription: Sub, count: int) -> None:
        """Messages were dropped that had been gathered for a subscription."""

    def appends(self) -> list[Append]:
        """``pending.append`` of each outbox in `direct`, bound once: the loop over a thousand subscribers runs over
        these. Brings `direct` and `takers` up to date."""
        if self._appends is None:
            between = {outbox: each.taker for outbox, each in self.outboxes.items()}
            takers: list[Taker] = [each for each in between.values() if each is not None]
            self.direct = self.outboxes
            if takers:
                self.direct = {outbox: each for outbox, each in self.outboxes.items() if between[outbox] is None}
            if self.pulse is not None:
                takers.append(self.pulse)
            if self._silent and (silent := {outbox for outbox, each in self.direct.items() if not each.echo}):
                takers.insert(0, Echoes(silent))
            self.takers = takers
            self._appends = [outbox.pending.append for outbox in self.direct]
        return self._appends

    def chunks(
        self,
        topic: Topic[In, Sub],
        elements: int,
        tails: list[bytes],
        stamp: bytes,
        born: float,
        key: str | None = None,
        first: int = 0,
    ) -> list[Chunk]:
        """MESSAGE envelopes of one run of publishes, cut into chunks of at most 64 KiB (or one message).

        Args:
            topic: Where they were published.
            elements: Of a MESSAGE: six, seven with an encoding, eight with meta.
            tails: Payload (with its msgpack header), encoding and meta of each.
            stamp: The time, eight bytes: microseconds since 1970.
            born: The time on trio's clock, in seconds.
            key: The conflation key within the topic, if there is one (then there is one message).
            first: The offset of the first of them; 0: they have none.
        """
        start = self._start if elements == _PLAIN_ELEMENTS else self._start_of(elements)
        if self.wildcard:
            start += topic.packed
        count = len(tails)
        if count == 1:  # in line here: most come alone, and calls would cost more than they do
            offset = _NO_OFFSET
            if first:
                offset = (
                    _pack_uint32(_UINT32_CODE, first) if first <= _MAX_UINT32 else _UINT64 + first.to_bytes(8, "big")
                )
            data = b"".join((start, offset, _UINT64, stamp, tails[0]))
            if key is not None:
                return [KeyedChunk(self, topic.name, data, born, key)]
            return [Chunk(self, topic.name, data, 1, born)]
        if first:
            data = _numbered(start, _UINT64 + stamp, tails, first)
        else:
            head = b"".join((start, _NO_OFFSET, _UINT64, stamp))
            data = head + head.join(tails)
        if len(data) <= MAX_BATCH:
            return [Chunk(self, topic.name, data, count, born)]
        return [Chunk(self, topic.name, part, some, born) for part, some in _parts(data, tails)]

    def _start_of(self, elements: int) -> bytes:
        """What a MESSAGE begins with, up to the topic's name; with the nil in its place where the pattern is one."""
        return _ARRAYS[elements] + self._prefix + (b"" if self.wildcard else _NIL)

    def _around_offset(self, packed: bytes, elements: int, stamp: bytes) -> tuple[bytes, bytes]:
        name = packed if self.wildcard else _NIL
        return b"".join((_ARRAYS[elements], self._prefix, name)), _UINT64 + stamp

    def replayed(self, topic: str, run: Run, room: int) -> tuple[bytes, int]:
        """Messages of the history as MESSAGEs: of one run so many as there is room for, and one in any case.

        Returns:
            Their bytes, and how many they are.
        """
        first, stamp, elements, tails = run
        before, after = self._around_offset(_pack(topic), elements, stamp)
        head = len(before) + len(_UINT64) + len(after) + 8
        count = len(tails)
        if count * head > room:
            count = room // head + 1
            tails = tails[:count]
        if count > 1 and sum(map(len, tails)) + head * count > room:
            ends = accumulate([len(tail) + head for tail in tails])
            count = max(1, sum([end <= room for end in ends]))
            tails = tails[:count]
        return _numbered(before, after, tails, first), count

    def retained(self, topic: str, stored: Stored) -> bytes:
        """A topic's last value, as MESSAGE that says so."""
        offset, stamp, elements, tail = stored
        name = _pack(topic) if self.wildcard else _NIL
        number = _pack(offset) if offset else _NO_OFFSET
        if elements == _MOST_ELEMENTS:
            payload, encoding, meta = parts_of_tail(stored)
            tail, end = b"".join((_pack(payload), _pack(encoding))), _pack({**meta, "retained": True})
        else:
            end = _RETAINED if elements == _MOST_ELEMENTS - 1 else _RAW_RETAINED
        return b"".join((_ARRAYS[_MOST_ELEMENTS], self._prefix, name, number, _UINT64, stamp, tail, end))

    def handed_over(self, chunk: Chunk, index: int) -> Chunk:
        """One of a chunk's messages, as MESSAGE that says that another member of the group was given it before."""
        message = list(_unpack(chunk.part(index, 1), raw=False))
        message += [0, {}][len(message) - _PLAIN_ELEMENTS :]
        message[-1] = {**message[-1], "redelivered": True}
        data = _pack(message)
        if isinstance(chunk, KeyedChunk):
            return KeyedChunk(self, chunk.topic, data, chunk.born, chunk.message_key)
        return Chunk(self, chunk.topic, data, 1, chunk.born)

    def first_offset(self, chunk: Chunk) -> int:
        """Of its first message."""
        at = self._where_offset_stands(chunk.topic)
        width = _LENGTH_OF_OFFSET[chunk.data[at]]
        return int.from_bytes(chunk.data[at + 1 : at + width], "big")

    def stamp_of(self, chunk: Chunk) -> bytes:
        """When it was published: no two publishes have the same."""
        at = self._where_offset_stands(chunk.topic)
        at += _LENGTH_OF_OFFSET[chunk.data[at]] + len(_UINT64)
        return chunk.data[at : at + 8]

    def is_empty(self, chunk: Chunk) -> bool:
        """Whether the payload of its last message is."""
        last = chunk.newest().data
        at = self._where_offset_stands(chunk.topic)
        return last.startswith(EMPTY_BIN, at + _LENGTH_OF_OFFSET[last[at]] + _STAMP)

    def _where_offset_stands(self, topic: str) -> int:
        return len(_ARRAYS[0]) + len(self._prefix) + len(_pack(topic) if self.wildcard else _NIL)

    def where_messages_end(self, topic: str, data: bytes, count: int) -> array[int]:
        """Where in ``data``, several messages that `chunks` made, each one ends; beginning with 0.

        They have no meta (those with meta come alone): behind the head stand the payload and perhaps an encoding.
        """
        offset = self._where_offset_stands(topic)
        head = offset + _LENGTH_OF_OFFSET[data[offset]] + _STAMP
        behind = (data[0] & 0x0F) - _PLAIN_ELEMENTS
        ends, at = array("I", [0]), 0
        for _ in range(count):
            at += head
            width = _LENGTH_OF_BIN[data[at]]
            at += 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big") + behind
            ends.append(at)
        return ends


def _numbered(before: bytes, after: bytes, tails: Sequence[bytes], first: int) -> bytes:
    """Messages with offsets. These have one width within a run, so that its messages can be told apart later.

    Of 256 offsets that follow each other only the last byte differs, and objects of one byte need not be made: so a
    long run is put together by slices and one join, at about 30 ns a message more than without offsets.
    """
    pieces: list[bytes] = []
    done, count = 0, len(tails)
    small = first + count <= _MAX_UINT32
    low = first & 0xFF
    if count < _LONG and small and low + count <= len(_BYTES):
        before += _UINT32 + (first >> 8).to_bytes(3, "big")
        if count == 2:  # the shortest run is the most frequent one where topics are many
            return b"".join((before, _BYTES[low], after, tails[0], before, _BYTES[low + 1], after, tails[1]))
        for tail in tails:
            pieces += (before, _BYTES[low], after, tail)
            low += 1
        return b"".join(pieces)
    width, code = (4, _UINT32) if small else (8, _UINT64)
    before += code
    while done < count:
        offset = first + done
        low = offset & 0xFF
        some = min(count - done, 256 - low)
        part = [before + offset.to_bytes(width, "big")[:-1], b"", after, b""] * some
        part[1::4] = _BYTES[low : low + some]
        part[3::4] = tails if some == count else tails[done : done + some]
        pieces = pieces + part if pieces else part
        done += some
    return b"".join(pieces)


def parts_of_tail(stored: Stored) -> tuple[bytes, int, dict[str, Any]]:
    """Payload, encoding and meta of what is stored."""
    payload, *rest = _unpack(_ARRAYS[stored.elements - _BEFORE_PAYLOAD] + stored.tail)
    encoding = rest[0] if rest else 0
    meta = rest[1] if len(rest) > 1 else {}
    return payload, encoding, meta


def _parts(data: bytes, tails: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Cut the envelopes of a long run so that each part is at most `MAX_BATCH` bytes, or one message."""
    lengths = list(accumulate(map(len, tails), initial=0))
    head, count, first = (len(data) - lengths[-1]) // len(tails), len(tails), 0

    def end_of(some: int) -> int:
        return lengths[some] + some * head

    while first < count:
        room = end_of(first) + MAX_BATCH
        end = max(first + 1, bisect_right(range(count + 1), room, lo=first + 1, key=end_of) - 1)
        yield data[end_of(first) : end_of(end)], end - first
        first = end
