"""Roles: named sets of permissions, as the settings have them."""

from __future__ import annotations

import re
from typing import Any

import attrs

from fanwire.protocol import (
    LocalProtocolError,
    check_pattern,
)

variable_of = re.compile(r"\{([^{}]+)\}").fullmatch
"""A token of a role's pattern that stands for a claim, whose name is the group."""


def _patterns(_instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if not all(isinstance(pattern, str) for pattern in value):
        raise ValueError(f"{attribute.name} must be a list of patterns, not {value!r}")
    for pattern in value:
        check_template(attribute.name, pattern)


def check_template(name: str, template: str) -> None:
    """Raise ValueError if ``template`` cannot be a pattern of the list ``name``."""
    tokens = ["x" if variable_of(token) else token for token in template.split(".")]
    if any(sign in token for token in tokens for sign in "{}"):
        raise ValueError(f"{name}: {template!r}: a variable is a whole token, such as user.{{sub}}.>")
    try:
        check_pattern(".".join(tokens))
    except LocalProtocolError as error:
        raise ValueError(f"{name}: {error}") from None
    if template.startswith("$") and not name.endswith("_deny"):
        raise ValueError(
            f"{name}: {template!r}: topics that begin with '$' are the broker's own; operator = true lets a role"
            " subscribe to $sys.>, demand = true to $sys.demand, and inboxes need no permission"
        )


def listed(value: Any) -> tuple[Any, ...]:
    """Converter: lists of a file are tuples here, and one text is not the list of its characters."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list of texts is needed, not {value!r}")
    return tuple(value)


@attrs.frozen(kw_only=True)
class Role:
    """A named set of permissions. Who has several roles has what any of them allows, less what any of them denies."""

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    """What tokens and other settings call it."""
    publish: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_patterns)
    """Topics it may publish on; ``{sub}`` stands for the user, other names for other claims of the JWT."""
    publish_deny: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_patterns)
    """Topics it may not publish on, whatever is allowed."""
    subscribe: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_patterns)
    """What it may subscribe to, fetch, and see the presence of."""
    subscribe_deny: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_patterns)
    """What it may not. A subscription that overlaps with it is refused as a whole."""
    operator: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    """Whether it may see all of ``$sys.>``: who is connected, what everybody is subscribed to, how slow they are."""
    demand: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    """Whether it may see ``$sys.demand``: every pattern that somebody is subscribed to. For publishers."""

    @property
    def variables(self) -> set[str]:
        """The claims that its patterns need."""
        lists = (self.publish, self.publish_deny, self.subscribe, self.subscribe_deny)
        tokens = {token for patterns in lists for pattern in patterns for token in pattern.split(".")}
        return {found[1] for token in tokens if (found := variable_of(token))}
