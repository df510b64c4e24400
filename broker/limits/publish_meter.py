"""How fast one connection publishes, and what becomes of that when it is more than it may.

It is charged for what reads have brought when that has been handled, and not before it is a hundredth of a second's
worth: so under load nothing but a sum is done for a read. A budget can be overdrawn, by one read. Publishes that want
an answer are refused then. Those that want none are let in and the connection is not read from until the debt is paid:
nothing is lost, and TCP tells the publisher to wait.
"""

from __future__ import annotations

import math

from .token_bucket import Bucket

# Not longer at a time, so that pings are answered: clients take silence for a broken connection after 20 s or so.
LONGEST_PAUSE_S = 15.0

# Who owes more time than this is disconnected (4009): it does not read what it is told, or cannot be slowed.
MOST_OWED_S = 60.0

# Of a second's worth, what need not be charged yet: of the connection's own budget, and of its user's, who may have
# many connections.
_SHARES = (0.01, 0.0001)

# Between two ERRORs of a connection that is slowed.
TELL_EVERY_S = 1.0


def buckets_of(prefix: str, rate: int | None, volume: int | None) -> tuple[Bucket | None, Bucket | None]:
    """For messages and for bytes, where there is a limit. A second's worth may come at once."""
    return (
        Bucket(f"{prefix}publish_rate", rate, rate) if rate is not None else None,
        Bucket(f"{prefix}publish_volume", volume, volume) if volume is not None else None,
    )


class Meter:
    """The budgets of one connection, some of them its user's."""

    __slots__ = ("_few", "_little", "_messages", "_uncharged", "_volumes", "acknowledged", "bytes_charged", "told_at")

    def __init__(self, *pairs: tuple[Bucket | None, Bucket | None]) -> None:
        """``pairs``: of messages and bytes, those of the connection itself first."""
        self._messages = [bucket for bucket, _ in pairs if bucket is not None]
        self._volumes = [bucket for _, bucket in pairs if bucket is not None]
        self._few, self._little = (
            min((bucket.rate * share for bucket, share in zip(each, _SHARES, strict=False) if bucket), default=math.inf)
            for each in zip(*pairs, strict=True)
        )
        self._uncharged = 0
        self.acknowledged = 0
        """Publishes let in since the last charge that wanted an answer."""
        self.bytes_charged = 0
        """Bytes that the connection had received at the last charge."""
        self.told_at = -math.inf
        """When the client was last told that it is slowed, on trio's clock."""

    def due(self, messages: int, received: int) -> bool:
        """Note so many more messages, and all bytes received so far; whether it is time to `settle`."""
        self._uncharged += messages
        return self._uncharged >= self._few or received - self.bytes_charged >= self._little

    def settle(self, received: int, now: float) -> Bucket | None:
        """`charge` for what was noted."""
        messages, size = self._uncharged, received - self.bytes_charged
        self._uncharged, self.bytes_charged = 0, received
        return self.charge(messages, size, now)

    def charge(self, messages: int, size: int, now: float) -> Bucket | None:
        """Take so much; return the bucket that is deepest in debt and slows the reader, if any does.

        Messages that were all acknowledged do not slow it: the next ones will be refused.
        """
        slows = messages > self.acknowledged
        self.acknowledged = 0
        worst, most = None, 0.0
        for bucket in self._messages:
            owed = bucket.take(messages, now)
            if slows and owed > most:
                worst, most = bucket, owed
        for bucket in self._volumes:
            owed = bucket.take(size, now)
            if owed > most:
                worst, most = bucket, owed
        return worst

    def debt(self, now: float) -> Bucket | None:
        """The bucket that is deepest in debt, if one is: publishes that want an answer are refused."""
        worst, most = None, 0.0
        for bucket in (*self._messages, *self._volumes):
            if (owed := bucket.owed_s(now)) > most:
                worst, most = bucket, owed
        return worst
