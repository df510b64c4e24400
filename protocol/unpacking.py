"""Bytes of a peer to values, bounded: whatever comes, it costs no more than its length is worth.

What msgpack's C code does by itself, and what is added here (seen in 1.2.4; tests watch over it):

* An array's list is allocated when its header is read, for the announced length; only the latest versions have a bound
  for that. So small values are unpacked under small limits (64 elements, at most 1,024 levels: under 1 MiB for a
  moment), and anything else only after `Unpacker.skip` has walked over it, which allocates nothing and finds out
  whether all that is announced is really there.
* Before 1.2.1 it leaks the inner arrays and maps of a value that fails or is cut off: no limit of ours helps there.
* It goes 1,024 levels deep, and then raises StackError (msgpack in Python: RecursionError). We want 16, and look
  afterwards, level by level.
* Map keys other than text or bytes are refused by ``strict_map_key``; bytes and repeated keys by our hook.
* Extension types go to a hook, except timestamps. ``max_ext_len=0`` refuses those with a body, the hook the rest.
* An Unpacker that is iterated ends silently at a cut-off value, and `tell()` counts the bytes of it; one that failed
  is unusable. So each message gets its own, and positions are noted between whole values only.
* An Unpacker's buffer has 1 MiB unless ``read_size`` says otherwise; ours is as large as the message.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NoReturn

import msgpack

from .codes import MAX_MAP, MAX_NESTING, Encoding
from .errors import Malformed, RemoteProtocolError
from .fields import shown

_SMALL: Final = 64

MAX_MIXED_MAP: Final = 128
"""Entries of a map in a user's data, whatever its keys are.

Text and bytes have hashes that nobody can foresee. Numbers, and lists of numbers (which come as tuples), can be chosen
so that they meet in the hash table: what a dict of them costs grows with the square of its size.
"""
MAX_NUMBERED_ENTRIES: Final = 4096
"""Entries of all larger maps of one payload whose keys are numbers, None, text and bytes: 20 ms at worst. Maps whose
keys are all text or bytes do not count."""


class _Refused(ValueError):
    """Well-formed msgpack that we don't take."""


def _text_keyed(pairs: Iterable[tuple[object, object]]) -> dict[object, object]:
    pairs = list(pairs)  # msgpack in Python hands a generator over, and does not look at the keys
    for key, _ in pairs:
        if type(key) is not str:
            raise _Refused("a map has a key that is no text")
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[object] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"a map has the key {shown(twice)} twice")
    return result


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise _Refused(f"extension type {code} is not taken")


_STRICT: Final[dict[str, Any]] = {
    "object_pairs_hook": _text_keyed,
    "ext_hook": _no_extension,
    "max_ext_len": 0,
    "max_map_len": MAX_MAP,
}
_STRICT_AND_SMALL: Final = {**_STRICT, "max_array_len": _SMALL, "max_map_len": _SMALL}


class Oversized:
    """In the place of a value with more elements than may be, or with a map of more than `MAX_MAP` entries.

    It has not been unpacked.
    """

    def __init__(self, head: list[object]) -> None:
        self.head = head
        """Its first two elements, as far as there are any."""


def unpack(data: bytes, start: int = 0, most: int = sys.maxsize) -> Iterator[object]:
    """The msgpack values of one message, in their order.

    They are nested at most `MAX_NESTING` deep and have no extension types; maps have text as keys, none of them twice.
    A value of very many elements, or with a very large map, comes as `Oversized`.

    Args:
        data: One whole message. An empty one has no values.
        start: Where the first value to be read begins.
        most: Elements that one value may consist of, at all levels; each entry of a map is two. A million empty maps
            are a megabyte here, and then 64 of them, and half a second of work.

    Raises:
        Malformed: After all values that stand before the fault.
    """
    large = len(data) - start > most  # else no value in it has so many; and messages of our SDK have 64 KiB
    if not start and not large:  # most messages of a client are one small envelope
        try:
            value = msgpack.unpackb(data, **_STRICT_AND_SMALL)
        except ValueError:
            pass
        else:
            _check_depth(value, 0)
            yield value
            return
    for value, end in _small_values(data, start) if not large else ():
        _check_depth(value, start)
        start = end
        yield value
    for at, end in _walk(data, start):
        if end - at > most and _has_more(data, at, most):
            yield Oversized(_head_of(data[at:end]))
            continue
        try:
            value = msgpack.unpackb(data[at:end], **_STRICT)
        except ValueError as error:
            if "max_map_len" in str(error):
                yield Oversized(_head_of(data[at:end]))
                continue
            raise Malformed(f"at byte {at}: {_reason(error)}") from None
        _check_depth(value, at)
        yield value


def _small_values(data: bytes, start: int) -> Iterator[tuple[object, int]]:
    """The values up to the first that is large, wrong or cut off, and where each ends."""
    reader = _over(data, start, _STRICT_AND_SMALL)
    while True:
        try:
            value = reader.unpack()
        except (ValueError, RecursionError, msgpack.OutOfData):
            return
        yield value, start + reader.tell()


def _over(data: bytes, start: int, options: dict[str, Any]) -> Any:
    size = max(1, len(data) - start)  # 0 would mean 2 GiB
    unpacker = msgpack.Unpacker(max_buffer_size=size, read_size=size, **options)
    unpacker.feed(memoryview(data)[start:])
    return unpacker


def _walk(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Where each value begins and ends. Nothing is allocated for them."""
    if start == len(data):
        return
    walker, at = _over(data, start, {}), start
    while at < len(data):
        try:
            walker.skip()
        except msgpack.OutOfData:
            raise Malformed(f"at byte {at}: the message ends, {len(data) - at} bytes into a value") from None
        except (ValueError, RecursionError) as error:
            raise Malformed(f"at byte {at}: {_reason(error)}") from None
        end = start + walker.tell()
        yield at, end
        at = end


def _head_of(data: bytes) -> list[object]:
    """Type and id of an envelope, as far as there are any: two numbers."""
    start = {0xDC: 3, 0xDD: 5}.get(data[0], 1)
    if start == 1 and not 0x90 <= data[0] <= 0x9F:
        return []
    try:
        return list(islice(_over(data[start : start + 18], 0, _STRICT_AND_SMALL), 2))
    except ValueError:
        return []


def _has_more(data: bytes, at: int, most: int) -> bool:
    """Whether a (whole) value has more elements than ``most``. Takes no longer than these."""
    left, sizes = 1, _SIZES
    for _ in range(most):
        code = data[at]
        if size := sizes[code]:  # nearly always; half the time
            at += size
            left -= 1
            if not left:
                return False
            continue
        width, count, each, size = _HEADS[code]
        if width:
            count = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        at += 1 + width + size + (0 if each else count)
        left += count * each - 1
        if not left:
            return False
    return True


def _element_of(code: int) -> tuple[int, int, int, int]:
    """What begins with a byte: bytes of its length; the length, if that is in the byte; elements for each of that (0:
    those are bytes); bytes besides."""
    lengths = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    sizes = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    extensions = {0xC7: (1, 0, 0, 1), 0xC8: (2, 0, 0, 1), 0xC9: (4, 0, 0, 1)}
    fixed = {0xD4 + power: (0, 0, 0, 1 + (1 << power)) for power in range(5)}
    containers = {0xDC: (2, 0, 1, 0), 0xDD: (4, 0, 1, 0), 0xDE: (2, 0, 2, 0), 0xDF: (4, 0, 2, 0)}
    if code in lengths:
        return lengths[code], 0, 0, 0
    if 0x80 <= code <= 0x8F:
        return 0, code & 0x0F, 2, 0
    if 0x90 <= code <= 0x9F:
        return 0, code & 0x0F, 1, 0
    if 0xA0 <= code <= 0xBF:
        return 0, code & 0x1F, 0, 0
    return {**extensions, **fixed, **containers}.get(code, (0, 0, 0, sizes.get(code, 0)))


_HEADS: Final = [_element_of(code) for code in range(256)]
# Bytes of an element that begins with a byte, where that alone says it and nothing is within it; else 0.
_SIZES: Final = [0 if width or (each and count) else 1 + count + size for width, count, each, size in _HEADS]


def _reason(error: Exception) -> str:
    if isinstance(error, msgpack.StackError | RecursionError):
        return _TOO_DEEP
    if isinstance(error, msgpack.FormatError):
        return "0xC1 is no msgpack"
    if isinstance(error, UnicodeDecodeError):
        return f"text is not UTF-8: {error.reason}"
    if "max_ext_len" in str(error):
        return "extension types are not taken"
    return str(error)


_SCALARS: Final = frozenset({int, str, bytes, type(None), bool, float})
_TOO_DEEP: Final = f"nested more than {MAX_NESTING} deep"


def _check_depth(value: Any, at: int) -> None:
    """By levels and not by recursion: there may be a thousand of them."""
    if type(value) is list and _SCALARS.issuperset(map(type, value)):  # nearly always
        return
    level = [value] if type(value) is list or type(value) is dict else []
    depth = 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise Malformed(f"at byte {at}: {_TOO_DEEP}")
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if type(item) is list or type(item) is dict
        ]


# ---------------------------------------------------------------- users' data


def unpack_data(payload: bytes, encoding: int) -> Any:
    """What a payload means to the user: bytes, a msgpack value, text, or a JSON value.

    A map whose keys are all text or bytes may have any number of entries; of others see `MAX_NUMBERED_ENTRIES` and
    `MAX_MIXED_MAP`. A list that is a key comes as a tuple. msgpack's extension types come as `msgpack.ExtType` and
    `msgpack.Timestamp`.

    Raises:
        RemoteProtocolError: code ``malformed``: the payload is not what its encoding says. Nothing else is amiss.
    """
    read = _READERS.get(encoding) if isinstance(encoding, int) else None  # a peer can say anything
    if read is None:
        raise RemoteProtocolError(f"encoding {shown(encoding)} is not known here", code="malformed")
    try:
        return read(payload)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.OutOfData) as error:
        what = str(error) or type(error).__name__
        raise RemoteProtocolError(f"payload is no {Encoding(encoding).name}: {what}", code="malformed") from None


def _unpack_user_data(payload: bytes) -> Any:
    try:
        return msgpack.unpackb(payload, strict_map_key=False, max_array_len=1024, max_map_len=MAX_MIXED_MAP)
    except (ValueError, TypeError):  # large, or a list is a key, or wrong
        _over(payload, 0, {}).skip()
        return msgpack.unpackb(payload, strict_map_key=False, object_pairs_hook=_UserMaps())


class _UserMaps:
    """Makes the maps of one payload."""

    def __init__(self) -> None:
        self._maps = MapBudget()

    def __call__(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        pairs = list(pairs)
        if why := self._maps.refuses(len(pairs), map(_first, pairs)):
            raise _Refused(why)
        return {_hashable(key): value for key, value in pairs}


_first = itemgetter(0)


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if type(key) is list else key


_TEXTUAL: Final = frozenset({str, bytes})
_NUMBERED: Final = _TEXTUAL | {int, float, bool, type(None)}


def _plain(kind: type) -> type:
    """As what a key of a type of the program's own, an enum's say, will be read."""
    return next((plain for plain in (str, bytes, int, float) if issubclass(kind, plain)), kind)


class MapBudget:
    """What the maps of one payload may cost who reads them: one rule for both ends."""

    def __init__(self) -> None:
        self._left = MAX_NUMBERED_ENTRIES

    def refuses(self, size: int, keys: Iterable[object]) -> str | None:
        """Take a map into account; return what is wrong with it, if it is too much."""
        if size <= MAX_MIXED_MAP:
            return None
        kinds = {_plain(kind) for kind in set(map(type, keys))}
        if kinds <= _TEXTUAL:
            return None
        if not kinds <= _NUMBERED:
            return f"a map of {size} entries has keys that are lists or the like; {MAX_MIXED_MAP} entries may have such"
        self._left -= size
        if self._left >= 0:
            return None
        return (
            f"a map of {size} entries has keys that are neither text nor bytes; the large ones of a message may have"
            f" {MAX_NUMBERED_ENTRIES} together"
        )


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON")


_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    Encoding.RAW: lambda payload: payload,
    Encoding.MSGPACK: _unpack_user_data,
    Encoding.TEXT: lambda payload: payload.decode(),
    Encoding.JSON: lambda payload: json.loads(payload.decode(), parse_constant=_no_constant),
}
