"""What a request is answered with: a whole body, a stream, or an error, which always has one shape."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import attrs
import trio

JSON = "application/json"

STATUS_OF = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "bad_envelope": HTTPStatus.BAD_REQUEST,
    "bad_topic": HTTPStatus.BAD_REQUEST,
    "bad_pattern": HTTPStatus.BAD_REQUEST,
    "bad_option": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "expired": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "not_kept": HTTPStatus.NOT_FOUND,
    "no_responders": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "timeout": HTTPStatus.REQUEST_TIMEOUT,
    "conflict": HTTPStatus.CONFLICT,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "bad_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "too_many": HTTPStatus.TOO_MANY_REQUESTS,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "shutting_down": HTTPStatus.SERVICE_UNAVAILABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}

CODES_OF_HTTP = ("not_found", "method_not_allowed", "timeout", "bad_media_type")
"""Codes of errors that the protocol does not have."""


@attrs.frozen
class Answer:
    """A whole one."""

    status: int
    body: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)
    close: bool = False
    """Whether it is the last one of its connection."""


class Outlet(Protocol):
    """Where the body of a `Stream` goes."""

    draining: trio.Event
    """Set when the broker shuts down: say what is to be said, and return."""

    async def send(self, data: bytes) -> None:
        """Send some of it; before that, the first time, the head. Waits as long as the client does; a deadline is the
        caller's."""

    def hand_over(self) -> None:
        """From now on a session counts among the clients, and the connection does no more."""

    def acknowledged(self) -> tuple[int, int]:
        """Bytes that have reached the client's machine, and bytes that have yet to, as far as is known."""

    def buffer_little(self, size: int) -> None:
        """See `FrameStream.buffer_little`."""


@attrs.frozen
class Stream:
    """An answer without a known end. Its status is 200, unless `body` raises `HttpError` before it has sent any."""

    media_type: str
    body: Callable[[Outlet], Awaitable[None]]
    """Sends it. Cancelled when the client hangs up; the connection ends when it returns."""
    headers: Mapping[str, str] = attrs.field(factory=dict)


Reply: TypeAlias = Answer | Stream


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    """An answer in JSON."""
    return Answer(status, as_json(value))


def as_json(value: object) -> bytes:
    """In one line, which ends. Raises ValueError for what JSON cannot say."""
    try:
        return _dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a pair of surrogates, which no UTF-8 has
        return _dumps(value, ensure_ascii=True).encode("ascii")


def _dumps(value: object, *, ensure_ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":")) + "\n"


class HttpError(Exception):
    """A request that is answered with an error; the connection may go on."""

    def __init__(
        self, code: str, message: str, detail: Mapping[str, object] | None = None, *, status: int | None = None
    ) -> None:
        """``code``: of the protocol, or of `CODES_OF_HTTP`; it settles the status, unless one is given.

        ``detail``: what a program may want to know beside it.
        """
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF[code] if status is None else status
        self.detail = dict(detail or {})
        self.headers: dict[str, str] = {}
        self.close = False
        """Whether the connection has to end with it."""

    def with_header(self, name: str, value: str) -> HttpError:
        """The same, with one more header."""
        self.headers[name] = value
        return self

    def closing(self) -> HttpError:
        """The same, as the last one of its connection."""
        self.close = True
        return self

    def as_map(self) -> dict[str, Any]:
        """What stands in the body."""
        return error_map(self.code, str(self), self.detail)

    def answer(self) -> Answer:
        """As it is sent."""
        headers = dict(self.headers)
        if isinstance(wait_ms := self.detail.get("retry_after_ms"), int):
            headers.setdefault("Retry-After", str(math.ceil(wait_ms / 1000)))
        return Answer(self.status, as_json({"error": self.as_map()}), headers=headers, close=self.close)


def error_map(code: str, message: str, detail: Mapping[str, object]) -> dict[str, Any]:
    """The one shape that errors have."""
    return {"code": code, "message": message, **({"detail": dict(detail)} if detail else {})}
