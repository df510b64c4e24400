"""What an endpoint is: where it is, who may ask, what for, and what may be answered. The description is complete:
requests are judged by it, and a document for others can be made from it."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from ..settings.rule_text import yes_or_no
from .answers import JSON, HttpError, Reply
from .who import Who

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request

    Handler: TypeAlias = Callable[[Hub, Request], Awaitable[Reply]]

MAX_VALUE = 2**63 - 1

NOTHING_SERVED = "nothing is served at this path"

_decimal = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?").fullmatch


@attrs.frozen
class Parameter:
    """A field of the query, or a part of the path in braces."""

    name: str
    about: str
    """In a few words."""
    type: str = "string"
    """As JSON Schema calls it: string, integer, number or boolean."""
    where: str = "query"
    """query or path."""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    """For the document (`openapi`), where the above does not say it all; the handler judges by itself."""

    def read(self, text: str) -> Any:
        """The value that a text stands for. Raises `HttpError` (`bad_option`)."""
        if self.type == "boolean":
            try:
                return yes_or_no(text)
            except ValueError:
                raise self._bad(text, "true or false (or yes, no, on, off)") from None
        if self.type == "integer":
            return self._number(text)
        if self.type == "number":
            return self._fraction(text)
        if self.choices and text not in self.choices:
            raise self._bad(text, " or ".join(self.choices))
        return text

    def _number(self, text: str) -> int:
        least = 0 if self.least is None else self.least
        most = MAX_VALUE if self.most is None else self.most
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not least <= value <= most:
            raise self._bad(text, f"a whole number from {least} to {most}")
        return value

    def _fraction(self, text: str) -> float:
        assert self.least is not None
        assert self.most is not None
        value = float(text) if _decimal(text) else math.nan
        if not self.least <= value <= self.most:
            raise self._bad(text, f"a number from {self.least:g} to {self.most:g}")
        return value

    def _bad(self, text: str, wanted: str) -> HttpError:
        return HttpError("bad_option", f"{self.name!r} is {text[:64]!r}; it must be {wanted}", {"option": self.name})


@attrs.frozen(kw_only=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """With variable parts in braces, each a whole part: ``/v1/topics/{topic}/last``."""
    who: Who
    summary: str
    handle: Handler
    parameters: tuple[Parameter, ...] = ()
    alternatives: tuple[str, ...] = ()
    """Parameters of which at most one may be given."""
    answers: Mapping[int, str]
    """What a status says here. `errors_of` adds those that every endpoint may answer."""
    produces: str = JSON
    """The media type of a good answer."""
    consumes: tuple[str, ...] = ()
    """Media types that a body may have; none: there is no body."""
    schema: str = ""
    """What a good answer looks like: a name in `schemas.SCHEMAS`, for the document. Nothing: it is not JSON."""
    body: str = ""
    """The same of a body in JSON. Nothing: it may be anything."""
    shaped: tuple[int, ...] = ()
    """Statuses that are no good ones, and whose answers look like one all the same."""
    parts: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.path.split("/")))

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The variable parts of a path that was cut at its slashes, still encoded; None: it is another path."""
        if len(parts) != len(self.parts):
            return None
        found: dict[str, str] = {}
        for wanted, part in zip(self.parts, parts, strict=True):
            if wanted.startswith("{"):
                found[wanted[1:-1]] = part
            elif wanted != part:
                return None
        return found

    def read_query(self, fields: list[tuple[str, str]]) -> dict[str, Any]:
        """The parameters of a query by name; `token` is not one of them. What is for everybody has none, and takes any.

        Raises:
            HttpError: A parameter is unknown, wrong, or given twice (`bad_option`).
        """
        if self.who is Who.EVERYBODY:
            return {}  # health checks add what they like to a URL, against caches
        known = {each.name: each for each in self.parameters if each.where == "query"}
        values: dict[str, Any] = {}
        for name, text in fields:
            if name == "token":
                continue
            if name not in known:
                has = ", ".join(known) or "none"
                raise HttpError("bad_option", f"unknown parameter {name[:64]!r}; there is {has}", {"option": name[:64]})
            if name in values:
                raise HttpError("bad_option", f"{name!r} is given twice", {"option": name})
            values[name] = known[name].read(text)
        self._check_alternatives([name for name in self.alternatives if name in values])
        return values

    def _check_alternatives(self, given: list[str]) -> None:
        if len(given) > 1:
            raise HttpError("bad_option", f"{' and '.join(map(repr, given))} exclude each other", {"option": given[1]})


def find(endpoints: Iterable[Endpoint], method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
    """The endpoint that serves a request, and the variable parts of the path, decoded. HEAD is served as GET.

    Raises:
        HttpError: `not_found`, or `method_not_allowed` with what is allowed.
    """
    there = _served(endpoints, path)
    wanted = "GET" if method == "HEAD" else method
    for endpoint, found in there:
        if endpoint.method == wanted:
            return endpoint, {name: decoded(part) for name, part in found.items()}
    allowed = ", ".join(_methods([endpoint for endpoint, _ in there]))
    raise HttpError("method_not_allowed", f"{method} is not served here; {allowed} is").with_header("Allow", allowed)


def methods_at(endpoints: Iterable[Endpoint], path: str) -> list[str]:
    """The methods that are served at a path, in order. Raises `HttpError` (`not_found`) if there are none."""
    return _methods([endpoint for endpoint, _ in _served(endpoints, path)])


def _methods(there: list[Endpoint]) -> list[str]:
    methods = {endpoint.method for endpoint in there}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _served(endpoints: Iterable[Endpoint], path: str) -> list[tuple[Endpoint, dict[str, str]]]:
    """The endpoints at a path, whatever their method, with the variable parts of the path, still encoded."""
    parts = path.split("/")
    there = [(endpoint, found) for endpoint in endpoints if (found := endpoint.match(parts)) is not None]
    if not there:
        raise HttpError("not_found", NOTHING_SERVED)
    least = min(len(found) for _, found in there)  # a path in so many words, before one that has a variable there
    return [(endpoint, found) for endpoint, found in there if len(found) == least]


def decoded(part: str) -> str:
    """One part of a path without percent signs: ``a%2Fb`` is a name with a slash, and no two parts."""
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise HttpError("malformed", "the path is not UTF-8 behind its percent signs") from None


def errors_of(endpoint: Endpoint) -> dict[int, str]:
    """What an endpoint may answer, those answers included that have nothing to do with what it serves."""
    common = {
        400: "The request is malformed, or a parameter is unknown or wrong.",
        408: "The request did not come in within its time.",
        413: "The body is larger than the broker takes.",
        431: "The head is larger than the broker takes.",
        500: "A defect of the broker; its log has the rest.",
        503: "The broker is full, or did not get to an answer in time.",
    }
    if endpoint.who is not Who.EVERYBODY:
        common |= {401: "A token is needed, or the one that came is not accepted.", 403: "You may not do that."}
    return dict(sorted({**common, **endpoint.answers}.items()))
