"""Tokens: had when a connection begins, and renewed before they expire."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from fanwire.protocol import Hello, encode

from ..answer_fields import number_of
from ..config import TokenSource, check_token
from ..errors import ConnectionFailed, FanwireError
from ..exchange.answers import Request, Requests

if TYPE_CHECKING:
    from ..exchange.outgoing import Outgoing


# A token is renewed when a fifth of its time is left, or a minute of it; after a failure again and again, so often.
LEFT, MOST_LEFT_S, RETRY_S = 0.2, 60.0, 5.0

_TRY_AGAIN: Mapping[str, Any] = {}

_log = logging.getLogger("fanwire.client")


async def token_of(source: str | TokenSource | None) -> str | None:
    """The token to begin a connection with.

    Raises:
        ConnectionFailed: The function that gives it failed.
    """
    if source is None or isinstance(source, str):
        return source
    try:
        return await _ask(source)
    except Exception as error:
        raise ConnectionFailed(f"there is no token to connect with: {error}", cause=error) from error


async def _ask(source: TokenSource) -> str:
    given = source()
    return check_token(await given if inspect.isawaitable(given) else given)


class Renewal:
    """Renews the token of one connection for as long as `run` does."""

    def __init__(self, source: str | TokenSource | None, requests: Requests, outgoing: Outgoing) -> None:
        self._source = source
        self._requests = requests
        self._outgoing = outgoing

    @trio.lowlevel.enable_ki_protection
    async def run(self, welcome: Mapping[str, Any]) -> None:
        """Wait for the right moment, say HELLO with a new token, and so on. Ends when there is nothing to renew."""
        told = welcome
        while callable(self._source) and (wait := _until_renewal(told)) is not None:
            await trio.sleep(wait)
            told = await self._renew(self._source)

    async def _renew(self, source: TokenSource) -> Mapping[str, Any]:
        """What the broker says to a new token. If none is to be had, the connection ends with the old one."""
        request = Request()
        number = self._requests.number()
        try:
            hello = Hello(number, token=await _ask(source))
            self._requests.expect(number, request)
            self._outgoing.add_control(encode(hello))
            return await request.result()
        except FanwireError as error:
            _log.warning("the broker did not take a new token: %s", error)
        except Exception:
            _log.warning("there is no new token; the connection ends when the old one expires", exc_info=True)
        finally:
            self._requests.forget(number)
        return _TRY_AGAIN


def _until_renewal(told: Mapping[str, Any]) -> float | None:
    """Seconds from now; None: there is nothing to renew."""
    if told is _TRY_AGAIN:
        return RETRY_S
    left = number_of(told.get("expires_in"))
    return None if left is None else max(1.0, left - min(left * LEFT, MOST_LEFT_S))
