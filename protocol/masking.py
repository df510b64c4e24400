"""Masking of client frames (RFC 6455 section 5.3): payload XOR the four-byte key, repeated.

Two implementations of one function. Pure Python does it with three big-integer conversions: about 1.5 ns a byte, which
is half of what a published 128-byte message costs the broker. ``websockets`` ships the same function in C at a
fortieth of that; where it is installed (the extras ``broker`` and ``speed``) we use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Mask: TypeAlias = Callable[[bytes, bytes], bytes]


def mask_in_python(data: bytes, key: bytes) -> bytes:
    """Return ``data`` masked, or unmasked, with ``key``.

    Args:
        data: Any number of bytes.
        key: Exactly four bytes.
    """
    size = len(data)
    pad = (key * ((size >> 2) + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def fastest_mask() -> Mask:
    """Return the C implementation when it is installed, else the one in Python."""
    try:
        # Imported here and not above: `import fanwire` must stay light (a test watches over it).
        from websockets.speedups import apply_mask
    except ImportError:
        return mask_in_python
    return apply_mask
