"""Routes, topics and the registry, as they are here: with outboxes and subscriptions in them."""

from __future__ import annotations

from typing import TypeAlias

from ..topics import registry, routes
from .outbox import Outbox
from .subscription import Subscription

Route: TypeAlias = routes.Route[Outbox, Subscription]
Topic: TypeAlias = routes.Topic[Outbox, Subscription]
Registry: TypeAlias = registry.Registry[Outbox, Subscription]
