"""What `fanwire top` shows, as text in cells: from the broker's `$sys.stats` and `$sys.connections`.

A broker of another version may leave things out of its reports, or add some: what is not there is shown as ``-``.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs

from .columns import Column, short_count, short_seconds
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

COLUMNS = (
    Column("CLIENT", 0, words=True),
    Column("SESSION", 13, name=True),  # whole: `fanwire kick` wants it
    Column("STATE", 1, name=True),
    Column("QUEUED", 2),
    Column("BYTES", 3),
    Column("OLDEST", 4),
    Column("NEAREST", 6, name=True),
    Column("HELD", 11),
    Column("LOST", 5),
    Column("REPLACED", 8),
    Column("BUFFER", 12),
    Column("USER", 9, words=True, least=6),
    Column("POLICY", 10, words=True),
    Column("PATTERNS", 7, words=True),
)
"""Those of words stand to the left. A narrow terminal goes without the least important ones."""

HEADINGS = tuple(column.heading for column in COLUMNS)

LEAST_S = 0.5
"""Rates are told over at least so many seconds: of two reports that are close together they would mean nothing."""


@attrs.frozen(slots=True)
class Reports:
    """One of each, and a `$sys.stats` from before, for rates."""

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
        """A second, between the two `$sys.stats`; nothing where the time between them is too short."""
        if self.before is None:
            return NOTHING
        took = _number(self.stats, "uptime_s") - _number(self.before, "uptime_s")
        count = _number(self.stats, key) - _number(self.before, key)
        return f"{count / took:,.0f}" if took >= LEAST_S and count >= 0 else NOTHING


class Recent:
    """The last reports of a broker's statistics: finds the one to reckon rates from."""

    def __init__(self) -> None:
        self._kept: deque[Mapping[str, Any]] = deque()

    def add(self, stats: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Take in the newest report.

        Returns:
            The newest of those before it that is at least `LEAST_S` older; None if there is none.
        """
        kept, now = self._kept, _number(stats, "uptime_s")
        if kept and now < _number(kept[-1], "uptime_s"):
            kept.clear()  # the broker was started anew
        while len(kept) > 1 and now - _number(kept[1], "uptime_s") >= LEAST_S:
            kept.popleft()
        before = kept[0] if kept and now - _number(kept[0], "uptime_s") >= LEAST_S else None
        # Not more than some twenty are kept, however often a broker reports.
        if not kept or now - _number(kept[-1], "uptime_s") >= LEAST_S / 10:
            kept.append(stats)
        return before


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


def cells(connection: Mapping[str, Any], *, short: bool = False) -> tuple[str, ...]:
    """One connection, in the order of `HEADINGS`. No cell is empty or has a blank in it.

    Args:
        connection: As it is reported.
        short: Whether large numbers are rounded, and have a unit: `1.23M`.
    """

    def count(key: str) -> str:
        return _short(connection, key) if short else _count(connection, key)

    oldest_s = _number(connection, "oldest_ms") / 1000
    return (
        _text(connection, "name"),
        _text(connection, "session"),
        "lagging" if connection.get("lagging") else "ok",
        count("queued"),
        count("queued_bytes"),
        short_seconds(oldest_s) if short else f"{oldest_s:.1f}s",
        nearest_limit(connection),
        count("held"),
        count("lost"),
        count("replaced"),
        _buffer(count("client_queued"), count("client_limit")),
        _text(connection, "user"),
        _texts(connection, "on_slow"),
        _patterns(connection),
    )


def nearest_limit(connection: Mapping[str, Any]) -> str:
    """Which measure of slowness is nearest to its limit, and how far it is: ``stall:83%``."""
    measure = _text(connection, "measure").removeprefix("max_").removesuffix("_timeout")
    return NOTHING if measure == NOTHING else f"{measure}:{_number(connection, 'percent'):.0f}%"


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


def _buffer(queued: str, limit: str) -> str:
    return NOTHING if NOTHING in (queued, limit) else f"{queued}/{limit}"


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


def _short(of: Mapping[str, Any], key: str) -> str:
    return short_count(of[key]) if isinstance(of.get(key), int) else NOTHING


def _by(of: Mapping[str, Any], key: str) -> str:
    value = of.get(key)
    if not isinstance(value, dict) or not value:
        return "0"
    return " ".join(f"{printable(str(name))}={count}" for name, count in sorted(value.items()))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
