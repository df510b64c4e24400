"""What the broker sent, as plain tuples: no object of ours per envelope on the hot road.

Tuples, because the garbage collector stops looking at a tuple that holds nothing it could collect; a hundred thousand
waiting lists it would walk over again and again (measured: that was 45 % of the time of receiving).

msgpack's C Unpacker decodes one read's worth (often hundreds of messages) in one go. It has to start clean for every
WebSocket message: an envelope cut off at the end of one must not swallow the beginning of the next. So a value that
nobody can guess is fed after each, and all of them have to come out again, the last one last. If they do not, or if
anything at all is wrong, the messages are decoded again one by one with the strict decoder, which knows what is
wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgpack

from fanwire.protocol import unpack

_END = os.urandom(8)
_PACKED_END: bytes = msgpack.packb(_END)

# Anything the C Unpacker raises for bytes that are no msgpack. (UnicodeDecodeError is a ValueError.)
_WRONG = (ValueError, TypeError, msgpack.UnpackException)


def _new_unpacker() -> msgpack.Unpacker:
    # Small to begin with (the default is 1 MiB for every one); it grows to what one read holds.
    # Lists and maps are allocated for the length that their header announces, so that has a bound here; larger ones
    # take the strict road, which looks first whether they are really there.
    return msgpack.Unpacker(
        read_size=16 * 1024,
        max_buffer_size=1 << 30,
        max_ext_len=0,
        max_array_len=1024,
        max_map_len=1024,
        use_list=False,
    )


class Decoder:
    """Decodes the messages of one connection."""

    def __init__(self) -> None:
        self._unpacker = _new_unpacker()

    def decode(self, messages: list[bytes]) -> list[Any] | None:
        """All values in ``messages``, in order; None if they have to be decoded with `strictly`."""
        unpacker = self._unpacker
        messages.append(b"")
        whole = _PACKED_END.join(messages)
        messages.pop()
        try:
            unpacker.feed(whole)
            values = list(unpacker)
        except _WRONG:
            self._unpacker = _new_unpacker()
            return None
        count = len(messages)
        if values and values[-1] == _END:
            if count == 1:
                values.pop()
                return values
            if values.count(_END) == count:
                return [value for value in values if value != _END]
        self._unpacker = _new_unpacker()
        return None


def strictly(messages: list[bytes]) -> Iterator[object]:
    """The values in ``messages`` as far as they are well-formed.

    Raises:
        Malformed: After the last good one.
    """
    for message in messages:
        for value in unpack(message):
            yield tuple(value) if isinstance(value, list) else value
