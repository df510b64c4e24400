"""Other settings while the broker runs: all at once, or none of them.

Each new connection has the settings of its time. Those there are get the new rules and limits on subscriptions, which
count with their next SUBSCRIBE; their deadlines and buffers stay as they were granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from ..network.certificate_expiry import tell_end
from ..sessions.authentication import authenticator_of, equip, go_by
from ..settings.config import Config, for_those_there
from ..settings.tls import load
from ..store.expiry import Expiry
from .foreign_patterns import warn_of_foreign_patterns

if TYPE_CHECKING:
    from ..sessions.hub import Hub

# With a lower limit there may be much to evict: so many runs of publishes before others get their turn, 2 µs each.
EVICTED_AT_ONCE = 500


async def reload(hub: Hub, config: Config) -> tuple[str, ...]:
    """Go by ``config`` from now on, but for what needs a restart.

    Returns:
        The fields that differ and need a restart; all else holds now.

    Raises:
        ValueError: They cannot be used, and nothing has changed.
    """
    kept = tuple(_kept(hub.config, config))
    before, now = hub.config, attrs.evolve(config, **{name: getattr(hub.config, name) for name in kept})
    # Every file is read here, once, before anything changes: one that changes meanwhile cannot leave half a reload.
    authenticator, tls = authenticator_of(now.auth), load(now.tls)
    _apply(hub, now)
    hub.tls = tls  # new connections go by it; what old ones agreed on is theirs
    tell_end(hub.tls)
    if (now.rules, now.auth) != (before.rules, before.auth):
        warn_of_foreign_patterns(now)
    if authenticator is not None and (now.auth != before.auth or _reads_files(now)):
        await go_by(hub, authenticator)
    while hub.store.shrink(EVICTED_AT_ONCE):
        await trio.lowlevel.checkpoint()
    return kept


def _kept(before: Config, after: Config) -> list[str]:
    fields = [field for field in attrs.fields(Config) if getattr(before, field.name) != getattr(after, field.name)]
    names = [field.name for field in fields if field.metadata.get("restart")]
    if (before.auth is None) is not (after.auth is None):
        names.append("auth")  # nobody knows who those are that have come in without being asked
    if (before.tls is None) is not (after.tls is None):
        names.append("tls")
    return names


def _reads_files(config: Config) -> bool:
    return config.auth is not None and bool(config.auth.keys or config.auth.jwks_file)


def _apply(hub: Hub, config: Config) -> None:
    before, hub.config = hub.config, config
    hub.addresses.change(config)
    hub.door.change(config)
    if hub.users.change(config):
        for session in hub.sessions:
            equip(session)
    hub.store.resize(config.max_stored_bytes, config.max_stored_topics)
    if config.rules != before.rules:
        hub.registry.change_rules(config.rules)
        watch_expiry(hub)
    hub.presence.change(config, hub.subscribed())
    hub.pressure.change(config)
    known: dict[int, tuple[Config, Config]] = {}
    for session in hub.sessions:
        old = session.config
        if id(old) not in known:
            known[id(old)] = old, for_those_there(old, config)  # kept, so that no other one gets its id
        session.config = known[id(old)][1]


def watch_expiry(hub: Hub) -> None:
    """Have old history forgotten, from when a rule first speaks of its age."""
    if not hub.expires and any(rule.history_s is not None for rule in hub.config.rules):
        hub.expires = True
        hub.watchdog.watch(Expiry(hub.store), trio.current_time())
