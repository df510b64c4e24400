"""What the broker tells of itself while somebody listens: ``$sys.stats`` and ``$sys.connections``.

Nothing is gathered, and no clock runs, while nobody is subscribed to them.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

import attrs
import msgpack
import trio

from fanwire.protocol import matches
from fanwire.protocol.reserved import CONNECTIONS, STATS, without_inbox
from fanwire.version import __version__

from ..delivery.outbox import LAGS_FROM
from ..telemetry.text import shown
from ..timing.turn import Turn

if TYPE_CHECKING:
    from ..delivery.outbox import Outbox
    from ..sessions.hub import Hub
    from ..sessions.session import Session

# Connections in one report, those furthest behind: at most some 810 bytes each, so that a report stays under 64 KiB.
MOST_LISTED = 80

# Closed ones in a report, newest first. `Broker.closed_connections` has all that are kept.
MOST_CLOSED = 20

# The least time between two reports of a kind, in seconds; half of the interval where that is less.
SPACING_S = 0.5

# Patterns of a connection that are named.
MOST_PATTERNS = 3

_pack = msgpack.Packer().pack
_MSGPACK = b"\x01"


@attrs.frozen
class ConnectionInfo:
    """One connection, now."""

    session: str
    """The broker's name for it (`session` in WELCOME)."""
    name: str
    """As the client called itself in HELLO."""
    user: str | None
    """The user whose token it presented; None: anonymous, or the broker does not ask."""
    agent: str
    """Its library, as it says."""
    address: str
    """Its IP address, as far as that is known; "unix" or "memory" for other ways in."""
    connected_s: float
    """How long it has lived, in seconds."""
    subscriptions: int
    """How many it has."""
    patterns: list[str]
    """The first few of them."""
    on_slow: list[str]
    """Their policies, each once."""
    queued: int
    """Messages in line."""
    queued_bytes: int
    """Bytes in line, half written or held by a rate."""
    oldest_ms: int
    """Age of the oldest of them."""
    held: int
    """Keys whose newest message waits until the subscriber's rate allows it."""
    lagging: bool
    """Whether a subscription of it lags, or the connection is past 75 % of what it may be behind."""
    measure: str | None
    """Which of the four measures of slowness is nearest to its limit: queue, max_pending, max_age or stall_timeout;
    None: nothing waits."""
    percent: int
    """How far that is, of its limit."""
    lost: int
    """Messages dropped by its policies so far."""
    replaced: int
    """Messages conflated, or passed over by its rate, so far."""
    client_queued: int | None
    """What waits in the client's own buffer, as it last said (BACKLOG); None: it said nothing."""
    client_limit: int | None
    """How much may."""


def look_at(session: Session) -> ConnectionInfo:
    """How a connection is. It must have an outbox."""
    outbox = session.outbox
    subscriptions = list(outbox.subscriptions.values())
    lost, replaced = session.totals()
    share, measure = outbox.nearest(trio.current_time(), [each for each in subscriptions if each.waiting])
    backlogs = [each.backlog for each in subscriptions if each.backlog is not None]
    client_queued, client_limit = max(backlogs, default=(None, None))
    return ConnectionInfo(
        session=session.id,
        name=shown(session.name),
        user=session.account_name and shown(session.account_name),
        agent=shown(session.agent),
        address=session.peer.address,
        connected_s=round(trio.current_time() - session.opened_at, 3),
        subscriptions=len(subscriptions),
        patterns=[shown(without_inbox(each.route.pattern)) for each in subscriptions[:MOST_PATTERNS]],
        on_slow=sorted({each.on_slow for each in subscriptions}),
        queued=sum([each.waiting for each in subscriptions]),
        queued_bytes=outbox.all_bytes,
        oldest_ms=int(outbox.oldest_s() * 1000),
        held=sum([each.held for each in subscriptions]),
        lagging=_lags(outbox),
        measure=measure or None,
        percent=int(share * 100),
        lost=lost,
        replaced=replaced,
        client_queued=client_queued,
        client_limit=client_limit,
    )


class Reports:
    """Publishes them. One for each broker.

    A report comes at once when somebody begins to listen, then at every interval, but never sooner after the last one
    than `SPACING_S`: all who listen get it, and what they divide by the time between two must stay a rate.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wanted = trio.Event()
        self._wanted_by_newcomers: set[str] = set()
        self._last: dict[str, float] = {}
        """When each was published."""

    def wanted(self, pattern: str) -> None:
        """Somebody has subscribed to a pattern that begins with ``$sys``."""
        names = {name for name in (STATS, CONNECTIONS) if matches(pattern, name)}
        if names:
            self._wanted_by_newcomers |= names
            self._wanted.set()

    async def run(self) -> None:
        """Runs until cancelled; belongs to the broker."""
        while True:
            with trio.CancelScope(deadline=min(self._due(name) for name in (STATS, CONNECTIONS))):
                await self._wanted.wait()
            self._wanted = trio.Event()
            await self._report()

    def _due(self, name: str) -> float:
        """When the next of a kind is to be published; never, while nobody is subscribed to it."""
        if not self._hub.registry.look_up(name).routes:
            self._wanted_by_newcomers.discard(name)
            return math.inf
        interval = self._hub.config.report_interval_s
        if name in self._wanted_by_newcomers:
            return self._last.get(name, -math.inf) + min(SPACING_S, (interval or math.inf) / 2)
        return math.inf if interval is None else self._last.get(name, -math.inf) + interval

    async def _report(self) -> None:
        """One of each that is due."""
        now = trio.current_time()
        if self._due(STATS) <= now:
            self._publish(STATS, stats(self._hub), now)
        if self._due(CONNECTIONS) <= now:
            self._publish(CONNECTIONS, await self._connections(), now)

    def _publish(self, name: str, report: dict[str, Any], now: float) -> None:
        self._last[name] = now
        self._wanted_by_newcomers.discard(name)
        tail = _pack(_pack(report)) + _MSGPACK
        self._hub.fanout.publish_own(self._hub.registry.topic_named(name), [tail])

    async def _connections(self) -> dict[str, Any]:
        total, lagging, listed = await connections_now(self._hub, MOST_LISTED)
        closed = list(self._hub.closed.newest_first())[:MOST_CLOSED]
        return {
            "total": total,
            "lagging": lagging,
            "connections": [attrs.asdict(each) for each in listed],
            "closed": [attrs.asdict(each) for each in closed],
        }


def stats(hub: Hub) -> dict[str, Any]:
    """What `$sys.stats` says, now."""
    uptime_s = round(trio.current_time() - hub.began, 3)
    return {
        **attrs.asdict(hub.statistics()),
        "uptime_s": uptime_s,
        "interval_s": hub.config.report_interval_s,
        "version": __version__,
    }


async def connections_now(hub: Hub, most: int, *, by_age: bool = False) -> tuple[int, int, list[ConnectionInfo]]:
    """Who is connected.

    Args:
        hub: Of the broker.
        most: So many are listed.
        by_age: Those that came first, and not those that are furthest behind.

    Returns:
        How many there are, how many of them lag, and those listed.
    """
    sessions = list(hub.sessions)
    behind: list[tuple[bool, int, int, Session]] = []
    turn = Turn()
    for index, session in enumerate(sessions):
        await turn.pause()
        if hasattr(session, "outbox"):
            behind.append(_rank(session, index))
    listed = []
    for *_, session in behind[:most] if by_age else heapq.nlargest(most, behind):
        await turn.pause()  # each may have a thousand subscriptions
        if hasattr(session, "outbox"):
            listed.append(look_at(session))
    return len(sessions), sum([lagging for lagging, *_ in behind]), listed


def _lags(outbox: Outbox) -> bool:
    """The connection alone may be stalled, on half a frame: then there is no subscription of which anything waits."""
    lagging = any(each.lagging for each in outbox.subscriptions.values())
    return lagging or outbox.nearest(trio.current_time(), ())[0] > LAGS_FROM


def _rank(session: Session, index: int) -> tuple[bool, int, int, Session]:
    """Who lags comes first, then by bytes that wait; the number keeps sessions from being compared."""
    outbox = session.outbox
    return _lags(outbox), outbox.all_bytes, -index, session
