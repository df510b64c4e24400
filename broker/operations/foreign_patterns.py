"""Patterns in the settings that are written as for MQTT or AMQP, and so match nothing that their author thinks of."""

from __future__ import annotations

from collections.abc import Iterator

from fanwire.protocol import foreign_wildcards

from ..settings.config import Config
from ..telemetry.log import log

_LISTS = ("publish", "publish_deny", "subscribe", "subscribe_deny")


def foreign_patterns(config: Config) -> Iterator[tuple[str, str]]:
    """Find them among the rules and the roles.

    Yields:
        Where it stands, such as ``rules[0]`` or ``auth.roles[2].publish``, and a line that says what is meant here.
    """
    for number, rule in enumerate(config.rules):
        if (hint := foreign_wildcards(rule.pattern)) is not None:
            yield f"rules[{number}]", hint
    for number, role in enumerate(config.auth.roles if config.auth is not None else ()):
        for name in _LISTS:
            for pattern in getattr(role, name):
                if (hint := foreign_wildcards(pattern)) is not None:
                    yield f"auth.roles[{number}].{name}", hint


def warn_of_foreign_patterns(config: Config) -> None:
    """Write a line to the log for each of them."""
    for place, hint in foreign_patterns(config):
        log.warning("pattern of another system", setting=place, hint=hint)
