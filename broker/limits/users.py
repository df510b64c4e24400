"""Users, where the broker asks who one is: how many connections of one, and what they may publish together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..sessions import disconnects
from .parties import Ledger, Party
from .publish_meter import Meter, buckets_of

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from ..sessions.session import Session
    from ..settings.config import Config
    from .token_bucket import Bucket


def rates_of(config: Config) -> tuple[int | None, ...]:
    """What meters depend on."""
    return (
        config.publish_rate,
        config.publish_volume_bytes,
        config.user_publish_rate,
        config.user_publish_volume_bytes,
    )


def budgets_of(config: Config) -> tuple[Bucket | None, Bucket | None]:
    """What one connection may publish by itself."""
    return buckets_of("", config.publish_rate, config.publish_volume_bytes)


class User(Party):
    """One user, with all connections."""

    __slots__ = ("buckets",)

    def __init__(self, key: str, config: Config) -> None:
        super().__init__(key)
        self.change(config)

    def change(self, config: Config) -> None:
        """Go by these settings; budgets are full at first."""
        self.buckets: tuple[Bucket | None, Bucket | None] = buckets_of(
            "user_", config.user_publish_rate, config.user_publish_volume_bytes
        )

    def settled(self, now: float) -> bool:
        """See `Party`."""
        return all(bucket is None or bucket.full(now) for bucket in self.buckets)


class Users:
    """All of them. One for each broker."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._ledger = Ledger(lambda key: User(key, hub.config))

    def change(self, before: Config, config: Config) -> None:
        """Go by these settings from now on, if they differ: budgets are full again then."""
        if rates_of(before) == rates_of(config):
            return
        for user in self._ledger.everybody():
            user.change(config)
        for session in self._hub.sessions:
            self.equip(session)

    def belong(self, session: Session) -> None:
        """A session has said who it is; it is ended if that user has too many."""
        name = session.identity.user if session.identity is not None else None
        if name is None or session.account is not None:
            return
        most = self._hub.config.max_connections_per_user
        user = self._ledger.find(name, trio.current_time())
        if most is not None and user.connections >= most:
            self._hub.limits.refuse("max_connections_per_user", user=name)
            session.end(disconnects.too_many_connections(self._hub.config.drain_spread_s, "this user has"))
            return
        self._ledger.join(user)
        session.account = user
        self.equip(session)

    def leave(self, session: Session) -> None:
        """A session has ended. Idempotent."""
        user, session.account = session.account, None
        if user is not None:
            self._ledger.leave(user, trio.current_time())

    def meter(self, own: tuple[Bucket | None, Bucket | None], name: str | None) -> Meter | None:
        """A meter of these budgets and of the user's, if there is one; None: nothing is limited."""
        account = None if name is None else self._ledger.find(name, trio.current_time())
        pairs = (own, (None, None) if account is None else account.buckets)
        return Meter(*pairs) if any(bucket is not None for pair in pairs for bucket in pair) else None

    def equip(self, session: Session) -> None:
        """Give a session the meter that it is to have by now: its own budgets, and its user's."""
        user = None if session.account is None else session.account.key
        session.meter = self.meter(budgets_of(self._hub.config), user)
        if session.meter is not None and hasattr(session, "stream"):
            session.meter.bytes_charged = session.stream.bytes_received
