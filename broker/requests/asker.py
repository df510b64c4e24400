"""What publishing and fetching need of whoever asks for it: a session, or who sends HTTP requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from ..telemetry.log import Speaker
from ..timing.clock import time_stamp

if TYPE_CHECKING:
    from ..auth.authenticator import Authenticator
    from ..auth.identity import Identity
    from ..auth.permissions import Permissions
    from ..delivery.fanout import Fanout
    from ..delivery.outbox import Outbox
    from ..delivery.routes import Registry, Topic
    from ..limits.addresses import Address
    from ..limits.publish_meter import Meter
    from ..limits.refusals import Limits
    from ..network.peer import Peer
    from ..settings.config import Config
    from ..store.interface import Store
    from ..telemetry.bounded_log import Repeats
    from ..telemetry.statistics import Counters


class Shared(Protocol):
    """What all who ask have in common: the broker's."""

    config: Config
    registry: Registry
    store: Store
    fanout: Fanout
    counters: Counters
    limits: Limits
    repeats: Repeats
    authenticator: Authenticator | None


class Asker(Speaker, Protocol):
    """Who asks."""

    @property
    def hub(self) -> Shared:
        """The broker's."""

    peer: Peer
    """Who is at the other end, or for whom that one speaks."""
    identity: Identity | None
    permissions: Permissions | None
    address: Address | None
    """Where it comes from, if something is limited there."""
    meter: Meter | None
    """How fast it publishes, if that is limited."""
    admin: bool
    """Whether it came to the operators' own port."""
    forbidden: int
    """Requests refused for want of a permission."""

    @property
    def user(self) -> str:
        """Whom rules and limits are about."""

    @property
    def config(self) -> Config:
        """The settings that hold for it."""

    @property
    def registry(self) -> Registry:
        """The broker's."""

    @property
    def epoch(self) -> str:
        """The life of the broker's store."""

    def publish(
        self, topic: Topic, elements: int, tail: bytes, key: str | None = None, retain: bool | None = None
    ) -> int:
        """Publish one message; the number of subscriptions reached. See `Fanout.publish`."""


def publish_one(
    hub: Shared,
    topic: Topic,
    elements: int,
    tail: bytes,
    key: str | None,
    retain: bool | None,
    source: Outbox | None = None,
) -> int:
    """Publish one message that did not come over the fast road; see `Fanout.publish`."""
    fanout = hub.fanout
    reached = fanout.publish(topic, elements, [tail], time_stamp(), trio.current_time(), key, retain, source)
    if topic.publisher_wait_s is not None:  # the next one must know who lags
        fanout.flush(*(outbox for route in topic.routes for outbox in route.outboxes))
    return reached


async def wait_for_subscribers(hub: Shared, name: str, over: Callable[[], bool] = lambda: False) -> None:
    """Wait as long as the operator has publishers of a topic wait for those who lag.

    Args:
        hub: The broker's.
        name: A valid topic.
        over: Whether there is nobody any more who wants to publish.
    """
    topic = hub.registry.look_up(name)
    with trio.move_on_after(topic.publisher_wait_s or 0):
        while topic.lagging and not over():
            await hub.fanout.caught_up()
            topic = hub.registry.look_up(name)
