"""One request, as handlers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from fanwire.protocol import LocalProtocolError, check_topic

from .answers import HttpError

if TYPE_CHECKING:
    from .caller import Caller
    from .endpoints import Endpoint


@attrs.frozen
class Request:
    """Found good as far as its `Endpoint` says."""

    endpoint: Endpoint
    caller: Caller
    """Who asks."""
    path: Mapping[str, str]
    """The variable parts of the path."""
    query: Mapping[str, Any]
    """The parameters that were given."""
    headers: Mapping[str, str]
    """By lower-case names."""
    body: bytes = attrs.field(repr=False)
    served: tuple[Endpoint, ...] = attrs.field(default=(), repr=False)
    """All that is served where it came."""

    @property
    def topic(self) -> str:
        """The part of the path with this name, which is a topic. Raises `HttpError` (`bad_topic`)."""
        try:
            return check_topic(self.path["topic"])
        except LocalProtocolError as error:
            raise HttpError(error.code, str(error)) from None

    @property
    def media_type(self) -> str:
        """Of the body, without its parameters; nothing: none was said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()
