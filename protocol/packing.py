"""Values to msgpack: what envelopes are made of, and users' data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgpack

from .codes import Encoding
from .errors import LocalProtocolError

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
            raise LocalProtocolError(f"msgpack cannot say this: {str(error) or type(error).__name__}") from None
        if len(packed) > _KEEP:
            self._renew()
        return packed


pack_elements: Final = _Packing(_say_plainly, strict=True)
_pack_data: Final = _Packing(_refuse, strict=False)


def pack(value: object) -> bytes:
    """Pack a user's data: None, bool, int (64 bits), float, str, bytes, lists, tuples (which arrive as lists), dicts.

    Dates and objects are not supported. Keys may be of any of the plain types, but a map of more than
    `fanwire.protocol.MAX_MIXED_MAP` entries is only read by `unpack_data` if all its keys are text or bytes.

    Raises:
        LocalProtocolError: Something in it has no form in msgpack; the text names its type.
    """
    return _pack_data(value)
