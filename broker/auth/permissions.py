"""What a user may publish on and subscribe to: patterns, allowed and denied, given by roles.

A subscription is allowed where one allowed pattern covers all that it could get, and no denied one overlaps with it:
so it need be looked at once, and never when a message comes. Patterns of a role may have variables (``user.{sub}.>``),
each of which is one whole token, filled with a claim that can be nothing else than one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from fanwire.protocol import (
    LocalProtocolError,
    check_pattern,
    check_topic,
    matches,
    pattern_covers,
    patterns_overlap,
)
from fanwire.protocol.reserved import is_inbox

from ..settings.roles import Role, variable_of

# Topics that a set of rights remembers as allowed for publishing; then it begins anew. Shared by all connections with
# the same rights. A feed of 10,000 symbols fits; 2 MiB at names of 50 bytes, 6 MiB at most, less than what may wait for
# one connection.
MAX_REMEMBERED = 16_384


class Unusable(ValueError):
    """A claim is missing, or is not what can be one token of a topic."""


@attrs.frozen
class Rights:
    """What somebody's roles come to, variables filled in. Equal ones are the same for everything."""

    publish: frozenset[str] = frozenset()
    publish_deny: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()
    subscribe_deny: frozenset[str] = frozenset()
    operator: bool = False


def rights_of(roles: Iterable[Role], claims: Mapping[str, object]) -> Rights:
    """What the roles come to for somebody with these claims.

    Raises:
        Unusable: A variable's claim is missing, or is not one token. Leaving out its pattern alone would not do: it may
            be a denied one.
    """
    roles = list(roles)
    system = {"$sys.>" for role in roles if role.operator} | {"$sys.demand" for role in roles if role.demand}
    return Rights(
        _filled(claims, *(role.publish for role in roles)),
        _filled(claims, *(role.publish_deny for role in roles)),
        _filled(claims, *(role.subscribe for role in roles)) | system,
        _filled(claims, *(role.subscribe_deny for role in roles)),
        any(role.operator for role in roles),
    )


def _filled(claims: Mapping[str, object], *lists: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_fill(template, claims) for templates in lists for template in templates)


def _fill(template: str, claims: Mapping[str, object]) -> str:
    tokens = [
        _token(found[1], claims.get(found[1])) if (found := variable_of(token)) else token
        for token in template.split(".")
    ]
    try:
        return check_pattern(".".join(tokens))
    except LocalProtocolError:
        raise Unusable(f"{template!r} would be too long with this token's claims") from None


def _token(name: str, value: object) -> str:
    """A claim as one token: it must not add a token, a wildcard, or reach the broker's own topics."""
    if value is None:
        raise Unusable(f"the claim {name!r} is missing, which a role's pattern needs")
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or "." in text or text.startswith("$"):
        raise Unusable(f"the claim {name!r} is not what can be one token of a topic")
    try:
        return check_topic(text)
    except LocalProtocolError:
        raise Unusable(f"the claim {name!r} is not what can be one token of a topic") from None


class Permissions:
    """Rights, to be asked. Sessions with equal rights share one."""

    __slots__ = ("__weakref__", "publishable", "rights")

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self.publishable: set[str] = set()
        """Topics that were asked for and are allowed: a look here first saves the call."""

    @property
    def operator(self) -> bool:
        """Whether it is an operator's."""
        return self.rights.operator

    def may_publish(self, topic: str) -> bool:
        """Whether it allows to publish on a (valid) topic. Everybody may publish into inboxes: that is how to reply."""
        if topic in self.publishable:
            return True
        rights = self.rights
        if any(matches(denied, topic) for denied in rights.publish_deny):
            return False
        if is_inbox(topic):
            return True  # each reply has a topic of its own: nothing to be remembered
        if not any(matches(allowed, topic) for allowed in rights.publish):
            return False
        if len(self.publishable) >= MAX_REMEMBERED:
            self.publishable.clear()
        self.publishable.add(topic)
        return True

    def may_publish_packed(self, packed: bytes) -> bool:
        """As `may_publish`, for a name in msgpack that nobody has checked; False if it is no topic."""
        try:
            topic = packed[1 + (packed[0] == 0xD9) :].decode()
            return topic in self.publishable or self.may_publish(check_topic(topic))
        except ValueError:  # no UTF-8, or no topic
            return False

    def may_subscribe(self, pattern: str) -> bool:
        """Whether it allows all that a (valid) pattern, or topic, could bring. Inboxes are no matter of permissions."""
        rights = self.rights
        if any(patterns_overlap(denied, pattern) for denied in rights.subscribe_deny):
            return False
        return any(pattern_covers(allowed, pattern) for allowed in rights.subscribe)

    def as_map(self) -> dict[str, list[str]]:
        """For WELCOME and `fanwire token check`."""
        return {field.name: sorted(value) for field, value in self._lists() if value}

    def _lists(self) -> list[tuple[attrs.Attribute[Any], frozenset[str]]]:
        values = [(field, getattr(self.rights, field.name)) for field in attrs.fields(Rights)]
        return [(field, value) for field, value in values if isinstance(value, frozenset)]
