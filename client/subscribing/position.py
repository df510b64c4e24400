"""How far a feed has come in its topics' histories, and with what it begins, or goes on after a break.

Offsets are noted as messages come in: what is in this process will not be asked for again.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from fanwire.protocol import Replay, SubscribeOptions

from ..answer_fields import unsigned_of, word_of
from ..exchange.answers import Result
from ..message import Raw
from ..notices import LostMessages
from .granted import effective_on_slow

# Why all since an offset is lost of which the broker knows nothing (protocol.md, Snapshot, replay, history).
RESTART = "restart"

# Topics whose offsets a feed remembers: they have to go into one SUBSCRIBE, with names of 30 bytes some 350 KiB of it.
MOST_TOPICS = 10_000


@frozen
class Beginning:
    """What a subscription begins with, and whether it goes on after a break where it was."""

    snapshot: bool = False
    replay: Replay | None = None
    recover: bool = True

    @property
    def plain(self) -> bool:
        """Whether it begins with what is published next."""
        return not self.snapshot and self.replay is None


class Asked(Enum):
    """What a SUBSCRIBE asked for."""

    LIVE = "live"
    """What is published from now on."""
    BEGINNING = "beginning"
    """What the program wants to begin with."""
    STATE = "state"
    """The newest of each topic, for who conflates anyhow."""
    REST = "rest"
    """All that was published since the break."""


@frozen
class Begun:
    """What is known of a break when the broker has said yes."""

    told: bool
    """Whether the broker says LOST for each message that is missing."""
    recovered: bool | None
    """Whether none is, as far as it knows yet; None: nothing was to go on."""


class Position:
    """Of one feed."""

    def __init__(self, pattern: str, *, wildcard: bool, beginning: Beginning) -> None:
        """Nothing has come yet."""
        self._pattern = pattern
        self._wildcard = wildcard
        self._beginning = beginning
        self._offsets: dict[str, int] = {}
        self._others: Replay | None = None  # where topics begin of which nothing has come
        self._numbered = False  # whether all messages have offsets
        self._given_up = False  # what came since the beginning cannot be told any more
        self._began = False
        self._whole = False  # whether everything it begins with has come
        self._head = 0
        self._next: str | None = None  # the epoch from the first thing on that comes now, while none has come yet
        self.epoch: str | None = None
        """The life of the broker's store that the offsets are of."""

    # --------------------------------------------------------------- asking

    def ask(self, wanted: SubscribeOptions) -> tuple[Asked, bool, Replay | None]:
        """With what the next SUBSCRIBE begins: what that is, ``snapshot`` and ``replay``."""
        beginning = self._beginning
        if not self._began:
            return (Asked.LIVE if beginning.plain else Asked.BEGINNING), beginning.snapshot, beginning.replay
        if not beginning.recover or wanted.group is not None:
            return Asked.LIVE, beginning.snapshot, None
        if self._given_up or self.epoch is None:
            return Asked.LIVE, beginning.snapshot, None
        if effective_on_slow(wanted) == "conflate":
            return (Asked.STATE, True, None) if self._numbered else (Asked.LIVE, beginning.snapshot, None)
        if self._wildcard:
            return Asked.REST, beginning.snapshot, self._rest_of_topics(self.epoch)
        offset = self._offsets.get(self._pattern)
        if offset is not None:
            return Asked.REST, False, Replay(offset=offset, epoch=self.epoch)
        if not self._whole:  # nothing of it has come: it can begin as it would have
            return Asked.BEGINNING, beginning.snapshot, beginning.replay
        return Asked.LIVE, beginning.snapshot, None

    def _rest_of_topics(self, epoch: str) -> Replay:
        others = self._others or Replay(since=0)
        offsets = {topic: offset for topic, offset in self._offsets.items() if offset}
        return Replay(offsets=offsets, epoch=epoch, last=others.last, since=others.since)

    def give_up(self) -> None:
        """What is missing after a break cannot be asked for: it begins with what is published then."""
        self._given_up = True
        self._offsets.clear()

    # ------------------------------------------------------------ beginning

    def begin(self, asked: Asked, result: Result) -> Begun:
        """The broker has said yes to what was ``asked``."""
        epoch = word_of(result.get("epoch"))
        renewed = self.epoch is not None and epoch != self.epoch
        self._head = unsigned_of(result.get("offset")) or 0
        self._numbered = result.get("history") is True
        self._whole = False
        # The broker is about to tell that what was missed is lost. Until it has come that far, another break must find
        # the old place: asked for that, the next broker tells it, too.
        waits = renewed and asked is Asked.REST and self._numbered and not self._wildcard
        self._next = epoch if waits else None
        if not waits:
            self.epoch = epoch
        if renewed and not waits:
            self._offsets.clear()
        if not self._began or asked is Asked.LIVE:
            self._begin_anew(asked, result)
        recovered = result.get("recovered") is True
        if asked is Asked.BEGINNING:
            replay = self._beginning.replay
            return Begun(told=True, recovered=recovered if replay is not None and replay.epoch is not None else None)
        told = self._numbered and asked is not Asked.LIVE and not (renewed and self._wildcard)
        return Begun(told=told, recovered=told and recovered)

    def _begin_anew(self, asked: Asked, result: Result) -> None:
        self._began = True
        self._given_up = False
        self._offsets.clear()
        if asked is Asked.LIVE:
            self._others = _since(result)
            self._is_whole()
        else:
            self._others = self._others_of(self._beginning.replay)

    def _others_of(self, replay: Replay | None) -> Replay:
        """Where topics begin of which nothing has come, if there is a break while it begins."""
        if replay is None:
            return Replay(last=1)
        if replay.offsets is not None and replay.epoch == self.epoch:
            self._offsets.update(replay.offsets)
        if replay.last is not None:
            return Replay(last=replay.last)
        return Replay(since=replay.since or 0)

    def complete(self, result: Result) -> None:
        """All that it begins with has come (SNAPSHOT_END), after OK with ``result``."""
        if self._others is None or self._others.since is None:
            self._others = _since(result)
        self._is_whole()

    def _arrive(self, epoch: str | None) -> None:
        """Offsets are of another epoch from now on. Where there was one, what follows is all from its first message."""
        self._next, self.epoch = None, epoch
        if self._wildcard or not self._offsets:
            self._offsets.clear()
        else:
            self._offsets[self._pattern] = 0

    def _is_whole(self) -> None:
        if self._next is not None:
            self._arrive(self._next)
        self._whole = True
        if not self._wildcard and self._numbered:
            self._offsets[self._pattern] = max(self._head, self._offsets.get(self._pattern, 0))

    def is_new(self, raw: Raw) -> bool:
        """Whether a message is not one that came before a break."""
        offset: int = raw[3]
        return offset == 0 or offset > self._offsets.get(raw[2] or self._pattern, 0)

    # --------------------------------------------------------------- noting

    def note(self, topics: tuple[str, ...], offsets: tuple[int, ...]) -> None:
        """A run of messages has come, some of them with offsets."""
        if not self._wildcard:
            if self._next is not None:
                self._arrive(self._next)
            self._offsets[self._pattern] = offsets[-1]
        elif not self._given_up:
            self._offsets.update(zip(topics, offsets, strict=True))
            if len(self._offsets) > MOST_TOPICS:
                self._check_room()

    def _check_room(self) -> None:
        self._offsets = {topic: offset for topic, offset in self._offsets.items() if offset}
        if len(self._offsets) > MOST_TOPICS:
            self.give_up()

    def note_loss(self, lost: LostMessages) -> None:
        """The broker has said that these are lost: they are not asked for again."""
        topic = lost.topic if self._wildcard else self._pattern
        if self._next is not None and lost.reason == RESTART:
            self._arrive(self._next)
        if topic is not None and lost.last is not None and not self._given_up:
            self._offsets[topic] = max(lost.last, self._offsets.get(topic, 0))
            if len(self._offsets) > MOST_TOPICS:
                self._check_room()

    def renew(self, epoch: object) -> None:
        """Offsets begin anew, on a connection that lives."""
        self._arrive(word_of(epoch))


def _since(result: Result) -> Replay | None:
    """All that is published after the broker's OK with ``result``: no message bears the same time."""
    time = unsigned_of(result.get("time"))
    return None if time is None else Replay(since=time)
