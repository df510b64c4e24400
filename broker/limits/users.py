"""Users, where the broker asks who one is: how many connections of one, and what they may publish together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .parties import Ledger, Party
from .publish_meter import Meter, buckets_of

if TYPE_CHECKING:
    from ..settings.config import Config
    from .refusals import Limits
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

    def __init__(self, config: Config, refusals: Limits) -> None:
        self._config = config
        self._refusals = refusals
        self._ledger = Ledger(lambda key: User(key, self._config))

    def change(self, config: Config) -> bool:
        """Go by these settings from now on; whether what may be published differs: then budgets are full again, and
        every connection needs another meter."""
        before, self._config = self._config, config
        if rates_of(before) == rates_of(config):
            return False
        for user in self._ledger.everybody():
            user.change(config)
        return True

    def enter(self, name: str) -> User | None:
        """One more connection of a user; None: there are as many as may be, which was counted."""
        most = self._config.max_connections_per_user
        user = self._ledger.find(name, trio.current_time())
        if most is not None and user.connections >= most:
            self._refusals.refuse("max_connections_per_user", user=name)
            return None
        self._ledger.join(user)
        return user

    def leave(self, user: User) -> None:
        """One of its connections has ended."""
        self._ledger.leave(user, trio.current_time())

    def meter(self, own: tuple[Bucket | None, Bucket | None], name: str | None) -> Meter | None:
        """A meter of these budgets and of the user's, if there is one; None: nothing is limited."""
        account = None if name is None else self._ledger.find(name, trio.current_time())
        pairs = (own, (None, None) if account is None else account.buckets)
        return Meter(*pairs) if any(bucket is not None for pair in pairs for bucket in pair) else None
