"""The end of the broker's own certificate is told in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..telemetry.log import log
from ..timing.timers import Watched

if TYPE_CHECKING:
    from ..settings.tls import LoadedTls
    from ..timing.timers import Watchdog

# From when on it is told. Authorities that issue for 90 days have them renewed 30 days before the end.
SOON_S = 14 * 86_400.0

EVERY_S = 12 * 3600.0


class CertificateWatch(Watched):
    """One entry of the watchdog, where TLS is spoken."""

    def __init__(self, current: Callable[[], LoadedTls | None]) -> None:
        """``current``: gives what TLS is spoken with by now; another one may be loaded at any time."""
        self._current = current

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        tell_end(self._current())
        return now + EVERY_S


def tell_end(tls: LoadedTls | None) -> None:
    """Log it, if the certificate ends soon or has ended."""
    if tls is None:
        return
    left = tls.expires_in_s
    if left <= 0:
        log.error("the certificate has expired", days_ago=round(-left / 86_400, 1))
    elif left < SOON_S:
        log.warning("the certificate expires soon", in_days=round(left / 86_400, 1))


def watch_certificate(current: Callable[[], LoadedTls | None], watchdog: Watchdog) -> None:
    """Look now, and twice a day, if TLS is spoken (see `CertificateWatch`)."""
    if current() is not None:
        watchdog.watch(CertificateWatch(current), trio.current_time())
