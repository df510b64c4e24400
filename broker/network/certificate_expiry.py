"""The end of the broker's own certificate is told in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..telemetry.log import log
from ..timing.timers import Watched

if TYPE_CHECKING:
    from ..sessions.hub import Hub

# From when on it is told. Authorities that issue for 90 days have them renewed 30 days before the end.
SOON_S = 14 * 86_400.0

EVERY_S = 12 * 3600.0


class TlsWatch(Watched):
    """One entry of the watchdog, where TLS is spoken."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        tell_end(self._hub)
        return now + EVERY_S


def tell_end(hub: Hub) -> None:
    """Log it, if the certificate ends soon or has ended."""
    if hub.tls is None:
        return
    left = hub.tls.expires_in_s
    if left <= 0:
        log.error("the certificate has expired", days_ago=round(-left / 86_400, 1))
    elif left < SOON_S:
        log.warning("the certificate expires soon", in_days=round(left / 86_400, 1))


def watch_certificate(hub: Hub) -> None:
    """Look now, and twice a day."""
    if hub.tls is not None:
        hub.watchdog.watch(TlsWatch(hub), trio.current_time())
