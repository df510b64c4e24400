"""The option maps of SUBSCRIBE and PUBLISH, and the rules that all option maps keep.

An unknown key is an error: a misspelt option must not pass in silence. nil means "no limit", and 0 is refused where it
would be one. Every error has the code ``bad_option`` and names the option.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, Self

import attrs

from .codes import MAX_NUMBER, ON_SLOW
from .errors import LocalProtocolError
from .fields import (
    Key,
    bad_option,
    flag,
    heartbeat,
    moment,
    name_option,
    offset_map,
    one_of,
    or_none,
    positive,
    rate,
    shown,
    text_map,
    to_map,
    topic_option,
    unsigned,
    word,
)

NO_LIMIT: Final = MAX_NUMBER
"""A ``queue`` as long as the broker lets it be; nil on the wire. (None is: as the broker likes, by leaving it out.)"""


def known(options: object, names: tuple[str, ...], what: str) -> dict[str, Any]:
    """Return an option map as it is, if it is a map and has none but these keys.

    Args:
        options: What came.
        names: The keys there are.
        what: Whose options, for the error: "SUBSCRIBE".
    """
    if type(options) is not dict:
        raise LocalProtocolError(f"{what}: options are {shown(options)}; they must be a map")
    for key in options:
        if key not in names:
            raise bad_option(str(key)[:64], f"{what} has no option {shown(key)}{_hint(key, names)}")
    return options


def _hint(key: object, names: tuple[str, ...]) -> str:
    # Cut: the comparison takes time in the square of the length, and the key may be a peer's.
    near = difflib.get_close_matches(str(key)[:64], names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}"


def given(options: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The named fields that are not None, in this order."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _names(of: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(of))


def _differing(options: attrs.AttrsInstance, plain: attrs.AttrsInstance) -> dict[str, Any]:
    """The options that are not at their defaults, in the order of the documentation."""
    return {
        field.name: value
        for field in attrs.fields(type(options))
        if (value := getattr(options, field.name)) != getattr(plain, field.name)
    }


@attrs.frozen
class Replay:
    """Where history begins, in one of four ways: ``last``, ``since``, ``offset`` or ``offsets``.

    With ``offsets``, ``last`` or ``since`` may say where topics begin that are not in the map; else they begin with
    their oldest message.
    """

    last: int | None = attrs.field(default=None, validator=or_none(positive))
    """So many messages of each topic."""
    since: int | None = attrs.field(default=None, validator=or_none(unsigned))
    """Microseconds since 1970; 0: all that is kept."""
    offset: int | None = attrs.field(default=None, validator=or_none(unsigned))
    """The last offset already had; with ``epoch``, of one topic."""
    offsets: Mapping[str, int] | None = attrs.field(default=None, validator=or_none(offset_map))
    """The same by topic, for a wildcard pattern; with ``epoch``."""
    epoch: str | None = attrs.field(default=None, validator=or_none(word))
    """Which life of the broker's store the offsets belong to."""

    def __attrs_post_init__(self) -> None:
        ways = given(self, ("last", "since", "offset", "offsets"))
        if "offsets" in ways and "offset" not in ways:
            ways.pop("last" if "last" in ways else "since", None)  # for the other topics
        if len(ways) != 1:
            raise bad_option("replay", "option 'replay' must have one of last, since, offset and offsets")
        if ("offset" in ways or "offsets" in ways) != (self.epoch is not None):
            raise bad_option("replay", "option 'replay' must have an epoch with offset or offsets, and only then")

    def to_map(self) -> dict[str, Any]:
        """As it stands in the option map."""
        return given(self, _REPLAY)


_REPLAY: Final = _names(Replay)
_SINCE: Final = Key("since")


def _to_replay(value: Any) -> Replay | None:
    if value is None or isinstance(value, Replay):
        return value
    if type(value) is not dict:
        raise bad_option("replay", f"option 'replay' is {shown(value)}; it must be a map")
    replay = Replay(**known(value, _REPLAY, "option 'replay'"))
    if replay.since is not None and replay.offsets is None:  # with offsets a broker said it, whose clock may be wrong
        moment(replay, _SINCE, replay.since)
    return replay


@attrs.frozen
class SubscribeOptions:
    """How a subscription is served (protocol reference, Subscribe options).

    Raises:
        LocalProtocolError: code ``bad_option``; `option` and the text name which.
    """

    on_slow: str = attrs.field(default=ON_SLOW[0], validator=one_of(ON_SLOW))
    """What becomes of the subscriber when its bounded queue is full."""
    queue: int | None = attrs.field(default=None, validator=or_none(positive))
    """Messages that may wait; None: the broker's default; `NO_LIMIT`: as many as it lets wait."""
    max_rate: float | None = attrs.field(default=None, validator=or_none(rate))
    """Messages per second and topic (and key) at most: 0.001 to 1,000,000."""
    heartbeat: float | None = attrs.field(default=None, validator=or_none(heartbeat))
    """Seconds of silence on a topic after which QUIET comes: more than 0, at most 1,000,000."""
    snapshot: bool = attrs.field(default=False, validator=flag)
    """Begin with the last value of each matching topic."""
    replay: Replay | None = attrs.field(default=None, converter=_to_replay)
    """Begin with history. A map is converted."""
    group: str | None = attrs.field(default=None, validator=or_none(word))
    """The queue group: each message goes to one of its members."""
    echo: bool = attrs.field(default=True, validator=flag)
    """Also what this connection itself publishes."""
    presence: bool = attrs.field(default=False, validator=flag)
    """Also PRESENCE_EVENTs of the pattern."""

    def __attrs_post_init__(self) -> None:
        if self.replay is not None and self.group is not None:
            raise bad_option("replay", "option 'replay' cannot be had with 'group': its members share one stream")

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> Self:
        """Read the option map of a SUBSCRIBE."""
        fields = known(options, _SUBSCRIBE, "SUBSCRIBE")
        if "queue" in fields and fields["queue"] is None:
            fields = {**fields, "queue": NO_LIMIT}
        return cls(**fields)

    def to_map(self) -> dict[str, Any]:
        """The option map: only what is not at its default."""
        options = _differing(self, PLAIN_SUBSCRIBE)
        if self.queue == NO_LIMIT:
            options["queue"] = None
        if self.replay is not None:
            options["replay"] = self.replay.to_map()
        return options


_SUBSCRIBE: Final = _names(SubscribeOptions)
PLAIN_SUBSCRIBE: Final = SubscribeOptions()


@attrs.frozen
class PublishOptions:
    """What goes with a publish (protocol reference, Envelopes, PUBLISH).

    Raises:
        LocalProtocolError: code ``bad_option``; `option` and the text name which.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict, converter=to_map, validator=text_map)
    """For the receivers; the broker does not look."""
    key: str | None = attrs.field(default=None, validator=or_none(name_option))
    """Conflation key within the topic, at most 255 bytes."""
    reply_to: str | None = attrs.field(default=None, validator=or_none(topic_option))
    """Topic for an answer."""
    retain: bool | None = attrs.field(default=None, validator=or_none(flag))
    """Keep it as the topic's last value; None: as the topic's rule has it."""
    msg_id: str | None = attrs.field(default=None, validator=or_none(word))
    """Repeated within the window, it is acknowledged and not delivered again."""
    expect: int | None = attrs.field(default=None, validator=or_none(unsigned))
    """The offset that the publisher believes is the topic's head."""

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> Self:
        """Read the option map of a PUBLISH."""
        return cls(**known(options, _PUBLISH, "PUBLISH"))

    def to_map(self) -> dict[str, Any]:
        """The option map: only what is not at its default."""
        return {} if self is PLAIN_PUBLISH else _differing(self, PLAIN_PUBLISH)


_PUBLISH: Final = _names(PublishOptions)
PLAIN_PUBLISH: Final = PublishOptions()
