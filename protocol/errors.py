"""What can be wrong with what is said, and whose fault it is.

    ProtocolError
    ├── LocalProtocolError (also a ValueError)   our own program says what it may not say
    └── RemoteProtocolError                      the peer said what it may not say
        └── Malformed                            … in bytes after which nothing can be understood any more

Any other exception out of `fanwire.protocol`, whatever the bytes, is a defect of ours.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Something that version 1 of the protocol does not allow. ``str()`` names what was wrong and where."""

    def __init__(self, message: str, *, code: str = "bad_envelope") -> None:
        """Keep both.

        Args:
            message: For people: what was wrong, where, and what would be right.
            code: For programs: one of `fanwire.protocol.ERROR_CODES`.
        """
        super().__init__(message)
        self.code = code


class LocalProtocolError(ProtocolError, ValueError):
    """Our caller asked for something that must not be sent. Nothing was sent; mend the call."""

    option: str | None = None
    """With the code ``bad_option``: which one."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what it must not send. What it sends next can still be understood."""


class Malformed(RemoteProtocolError):
    """Bytes that are no msgpack, are cut off, or break a decoding limit.

    Nobody can say where the next envelope would begin. After catching this you must read no more from the peer:
    the broker sends ERROR id 0 and closes with 1007.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, code="malformed")
