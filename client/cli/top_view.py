"""What `fanwire top` shows, as text in cells: from the broker's `$sys.stats` and `$sys.connections`.

A broker of another version may leave things out of its reports, or add some: what is not there is shown as ``-``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .terminal_text import printable

NOTHING = "-"

SORTS: dict[str, tuple[str, ...]] = {
    "lag": ("lagging", "queued_bytes"),
    "bytes": ("queued_bytes",),
    "age": ("oldest_ms",),
    "lost": ("lost",),
    "replaced": ("replaced",),
}
"""What connections are sorted by, the largest first."""

HEADINGS = (
    "CLIENT",
    "SESSION",
    "STATE",
    "QUEUED",
    "BYTES",
    "OLDEST",
    "HELD",
    "LOST",
    "REPLACED",
    "BUFFER",
    "POLICY",
    "PATTERNS",
)
WORDS = ("CLIENT", "SESSION", "STATE", "POLICY", "PATTERNS")
"""Columns of words: they stand to the left."""


@attrs.frozen(slots=True)
class Reports:
    """One of each, and the `$sys.stats` before, for rates."""

    stats: Mapping[str, Any]
    connections: Mapping[str, Any]
    before: Mapping[str, Any] | None = None

    def listed(self, sort: str, limit: int) -> list[Mapping[str, Any]]:
        """The connections to be shown, in their order."""
        known = _maps(self.connections.get("connections"))
        keys = SORTS[sort]
        known.sort(key=lambda each: tuple(_number(each, key) for key in keys), reverse=True)
        return known[:limit]

    def closed(self, limit: int) -> list[str]:
        """A line on each of the connections closed last."""
        return [_closed_line(each) for each in _maps(self.connections.get("closed"))[:limit]]

    def rate(self, key: str) -> str:
        """A second, between the last two reports."""
        if self.before is None:
            return NOTHING
        took = _number(self.stats, "uptime_s") - _number(self.before, "uptime_s")
        return f"{(_number(self.stats, key) - _number(self.before, key)) / took:,.0f}" if took > 0 else NOTHING


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def summary(reports: Reports) -> list[str]:
    """The lines above the table."""
    stats = reports.stats
    now = (
        f"up {_duration(_number(stats, 'uptime_s'))}, {_count(stats, 'connections')} connections,"
        f" {_count(stats, 'subscriptions')} subscriptions; published {reports.rate('published')}/s,"
        f" delivered {reports.rate('delivered')}/s"
    )
    so_far = (
        f"lagging {_count(stats, 'lagging')}; since the start: episodes {_count(stats, 'slow_episodes')},"
        f" lost {_by(stats, 'lost')}, replaced {_count(stats, 'replaced')},"
        f" unsubscribed {_count(stats, 'slow_unsubscribed')}, disconnected {_by(stats, 'slow_by_measure')}"
    )
    return [now, so_far]


def cells(connection: Mapping[str, Any]) -> tuple[str, ...]:
    """One connection, in the order of `HEADINGS`. No cell is empty or has a blank in it."""
    return tuple(text(connection) for text in _CELLS)


def _text(connection: Mapping[str, Any], key: str) -> str:
    value = connection.get(key)
    return "_".join(printable(value).split()) or NOTHING if isinstance(value, str) else NOTHING


def _texts(connection: Mapping[str, Any], key: str) -> str:
    value = connection.get(key)
    texts = [printable(each) for each in value if isinstance(each, str)] if isinstance(value, list) else []
    return ",".join(texts) or NOTHING


def _patterns(connection: Mapping[str, Any]) -> str:
    shown, value = _texts(connection, "patterns"), connection.get("patterns")
    more = _number(connection, "subscriptions") - (len(value) if isinstance(value, list) else 0)
    return f"{shown},+{more:g}" if more > 0 else shown


def _buffer(connection: Mapping[str, Any]) -> str:
    queued, limit = connection.get("client_queued"), connection.get("client_limit")
    return NOTHING if queued is None or limit is None else f"{queued}/{limit}"


_CELLS: tuple[Callable[[Mapping[str, Any]], str], ...] = (
    lambda one: _text(one, "name"),
    lambda one: _text(one, "session"),
    lambda one: "lagging" if one.get("lagging") else "ok",
    lambda one: _count(one, "queued"),
    lambda one: _count(one, "queued_bytes"),
    lambda one: f"{_number(one, 'oldest_ms') / 1000:.1f}s",
    lambda one: _count(one, "held"),
    lambda one: _count(one, "lost"),
    lambda one: _count(one, "replaced"),
    _buffer,
    lambda one: _texts(one, "on_slow"),
    _patterns,
)


def _closed_line(closed: Mapping[str, Any]) -> str:
    lasted = _duration(_number(closed, "lasted_s"))
    reason = printable(closed["reason"]) if isinstance(closed.get("reason"), str) else NOTHING
    return (
        f"{_text(closed, 'name')} {_text(closed, 'session')} closed {_count(closed, 'code')} after {lasted}: {reason}"
    )


def _number(of: Mapping[str, Any], key: str) -> float:
    value = of.get(key, 0)
    return value if isinstance(value, int | float) else 0


def _count(of: Mapping[str, Any], key: str) -> str:
    return f"{of[key]}" if isinstance(of.get(key), int) else NOTHING


def _by(of: Mapping[str, Any], key: str) -> str:
    value = of.get(key)
    if not isinstance(value, dict) or not value:
        return "0"
    return " ".join(f"{printable(str(name))}={count}" for name, count in sorted(value.items()))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
