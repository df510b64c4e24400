"""What topics remember: their last value, and their history by offset (docs/protocol.md, Delivery). The interface.

`memory` has the implementation there is; the tests of tests/contract hold for every one. All of it is
synchronous: a publish remembers between two steps that nobody gets between, and a page is read like that, too.

A store keeps within three bounds: each topic's own rule, the number of topics, and the bytes of all together. When
those are too many, the oldest history of all topics goes first; when no history is left, the last values that were
replaced longest ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from ..settings.rules import Keeping

# Ids of publishes that a topic remembers, so that a repeated one is not delivered again.
KEPT_IDS = 4096

# A payload of no bytes, in all the forms that msgpack has for its length.
EMPTY_BIN = (b"\xc4\x00", b"\xc5\x00\x00", b"\xc6\x00\x00\x00\x00")


class Stored(NamedTuple):
    """One message as it was published."""

    offset: int
    """0: its topic keeps no history."""
    stamp: bytes
    """Microseconds since 1970, eight bytes."""
    elements: int
    """Of its MESSAGE."""
    tail: bytes
    """What its MESSAGE ends with, from the payload on."""

    @property
    def time_us(self) -> int:
        """Microseconds since 1970."""
        return int.from_bytes(self.stamp, "big")

    @property
    def empty(self) -> bool:
        """Whether its payload is, whatever else it has: as a retained value it deletes the one before."""
        return self.tail.startswith(EMPTY_BIN)


Run: TypeAlias = tuple[int, bytes, int, Sequence[bytes]]
"""Messages that were published together: the offset of the first, and stamp, elements and tails (see `Stored`)."""


class Kept(Protocol):
    """What one topic remembers. Handles stay good as long as the broker lives."""

    @property
    def name(self) -> str:
        """The topic."""

    @property
    def serial(self) -> int:
        """Topics are numbered from 0 in the order in which they were first remembered."""

    @property
    def keeping(self) -> Keeping:
        """What it is to remember."""

    @property
    def head(self) -> int:
        """Offset of the last message; it survives the eviction of the message."""

    @property
    def gone_us(self) -> int:
        """When the newest message was taken in of those that are no longer kept, in microseconds since 1970; 0: all
        are."""

    @property
    def first(self) -> int:
        """Offset of the oldest message that is kept; of the next one to come when none is."""

    @property
    def has_history(self) -> bool:
        """Whether messages have offsets."""

    @property
    def last(self) -> Stored | None:
        """The retained value."""

    def take(self, elements: int, tails: list[bytes], stamp: bytes, retain: bool | None = None) -> int:
        """Remember a run of publishes.

        Args:
            elements: Of their MESSAGEs.
            tails: What these end with.
            stamp: The time, eight bytes.
            retain: Whether the last of them is the topic's last value from now on; None: as the rule has it. One with
                an empty payload deletes the value.

        Returns:
            The offset of the first of them; 0: this topic keeps no history.
        """

    def newest(self) -> Stored | None:
        """The last value: the retained one where values are retained, else the last message of the history."""

    def runs(self, offset: int) -> Iterator[Run]:
        """Messages from ``offset`` on, or from the oldest that is kept. Not to be used across a checkpoint.

        Where the first one stands is found by halving, however long the history is.
        """

    def first_since(self, time_us: int) -> int:
        """Offset of the oldest message kept that was taken in at ``time_us`` or later; of the next one to come when
        there is none. Found by halving, too."""

    def remember_id(self, msg_id: str, offset: int) -> None:
        """A publish with this id was taken in. The last `KEPT_IDS` are remembered; ids count against the bytes of all
        topics together, and go with the messages that are evicted."""

    def offset_of(self, msg_id: str) -> int | None:
        """The offset that a publish with this id got, if it was a short while ago."""


class Store(Protocol):
    """All that topics remember. One for each broker."""

    @property
    def epoch(self) -> str:
        """Names its life: offsets of another epoch mean nothing here."""

    @property
    def topics(self) -> Sequence[Kept]:
        """By serial number; it only grows."""

    @property
    def size(self) -> int:
        """Bytes of history, last values, ids of publishes, and the names and objects of topics that have any."""

    @property
    def evicted(self) -> int:
        """Messages of the history, and last values, that went because all together were too many, not because of their
        topic's rule."""

    @property
    def changes(self) -> int:
        """How often `change` was called: what somebody has noted of topics may not hold any more."""

    def find(self, name: str) -> Kept | None:
        """What a topic remembers, if it does."""

    def topic(self, name: str, keeping: Keeping, *, always: bool = False) -> Kept:
        """What a topic remembers, begun if need be.

        Args:
            name: The topic.
            keeping: What it is to remember.
            always: Whether there is a place for it however many topics are remembered: for the broker's own.

        Raises:
            LocalProtocolError: Too many topics are remembered already (`too_many`), and it is not ``always``.
        """

    def resize(self, limit: int, max_topics: int) -> None:
        """Other bounds: bytes of all together, and topics. Call `shrink` until nothing is left to do."""

    def shrink(self, most: int) -> bool:
        """Evict until all is within its bytes.

        Args:
            most: How much at once: so many runs of publishes, or looks at topics.

        Returns:
            Whether there is more to evict.
        """

    def change(self, keeping: Callable[[str], Keeping]) -> None:
        """Go by other rules: what they allow no more is forgotten at once. Where history begins anew after a time
        without, one offset is left out, so that who has an older one is told of a loss.

        Args:
            keeping: What a topic is to remember from now on.
        """

    def expire(self, now_us: int, most: int) -> bool:
        """Forget history that is older than its rule allows.

        Args:
            now_us: Microseconds since 1970.
            most: How much at once: so many runs of publishes.

        Returns:
            Whether there is more to forget.
        """
