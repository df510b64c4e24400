"""Values to msgpack: what envelopes are made of, and users' data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeGuard

import msgpack

from .codes import Encoding
from .errors import LocalProtocolError
from .fields import lone_surrogate, shown
from .unpacking import MapBudget

_KEEP: Final = 1 << 20
"""Bytes that a packer's buffer may have grown to; it never shrinks, so one that was larger is replaced."""


def _say_plainly(value: object) -> int:
    """What strict packing does not take; an Encoding is a plain number on the wire."""
    return int(value) if type(value) is Encoding else _refuse(value)


def _refuse(value: object) -> NoReturn:
    if isinstance(value, int):
        raise LocalProtocolError(f"an integer of {value.bit_length()} bits does not fit into msgpack's 64")
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise LocalProtocolError(f"{name} has no form in msgpack: convert it first, say to text or a number")


class _Packing:
    """A packer kept for its buffer. It is empty between two calls, even after an error."""

    def __init__(self, default: Callable[[Any], object], strict: bool) -> None:
        self._default = default
        self._strict = strict
        self._renew()

    def _renew(self) -> None:
        self._pack = msgpack.Packer(default=self._default, strict_types=self._strict).pack

    def __call__(self, value: object) -> bytes:
        try:
            packed: bytes = self._pack(value)
        except (ValueError, OverflowError, RecursionError, TypeError) as error:
            if isinstance(error, LocalProtocolError):
                raise
            raise LocalProtocolError(_why(error)) from None
        if len(packed) > _KEEP:
            self._renew()
        return packed


pack_elements: Final = _Packing(_say_plainly, strict=True)
_pack_data: Final = _Packing(_refuse, strict=False)


def pack(value: object) -> bytes:
    """Pack a user's data: None, bool, int (64 bits), float, str, bytes, lists, tuples (which arrive as lists), dicts.

    Dates and objects are not supported. Keys may be of any of the plain types, and tuples of them. What `unpack_data`
    would refuse to read is refused here: see `check_maps`.

    Raises:
        LocalProtocolError: Something in it has no form in msgpack; the text says what and where.
    """
    try:
        packed = _pack_data(value)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"{_place_of_fault(value)}: {error}") from None
    if len(packed) >= LEAST_UNREADABLE:
        check_maps(value, packed)
    return packed


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return lone_surrogate(error)
    if isinstance(error, RecursionError) or "recursion" in str(error):
        return "nested too deep: msgpack goes some 1,000 levels deep"
    return f"msgpack cannot say this: {str(error) or type(error).__name__}"


# --------------------------------------------------------------------- where it is

# As far as the place of a fault is looked for: levels, and values that are tried on the way.
_MOST_LEVELS: Final = 16
_MOST_TRIED: Final = 100_000


def _place_of_fault(value: object) -> str:
    """Where in the data the value is that cannot be packed, as Python would write it. Slow: for errors only."""
    place, tried = "data", 0
    for _ in range(_MOST_LEVELS):
        for name, item in _items(value):
            tried += 1
            if tried > _MOST_TRIED:
                return place
            if not _packs(item):
                place, value = place + name, item
                break
        else:
            break
    return place


def _items(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f" (its key {shown(key)})", key
            yield f"[{shown(key)}]", item
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def _packs(value: object) -> bool:
    try:
        _pack_data(value)
    except LocalProtocolError:
        return False
    return True


# ----------------------------------------------------------- what nobody could read

LEAST_UNREADABLE: Final = 384
"""Bytes from which on packed data can have a map that `unpack_data` refuses: `MAX_MIXED_MAP` entries of three bytes."""

# The header of a map with more than 128 entries. Other bytes may look like one.
_large_map = re.compile(rb"\xde(?:\x00[\x81-\xff]|[\x01-\xff])|\xdf").search


def check_maps(value: object, packed: bytes) -> None:
    """Refuse data that `unpack_data` would not read, because its maps have too many keys that are no text.

    Args:
        value: The data.
        packed: The same, packed.

    Raises:
        LocalProtocolError: The text says where, and what to do.
    """
    if (b"\xde" in packed or b"\xdf" in packed) and _large_map(packed):
        _check_maps(value)


def _check_maps(value: object) -> None:
    maps = MapBudget()
    waiting: list[tuple[str, object]] = [("data", value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict) and (why := maps.refuses(len(value), value)):
            raise LocalProtocolError(
                f"{place}: {why}. Make the keys text (str(key)), or send a list of pairs", code="too_large"
            )
        items: Iterable[tuple[object, object]]
        items = value.items() if isinstance(value, dict) else enumerate(value) if _is_list(value) else ()
        waiting += [(f"{place}[{shown(key)}]", item) for key, item in items if isinstance(item, dict | list | tuple)]


def _is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)
