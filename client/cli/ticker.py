"""Publishes bars when they are due: what `fanwire feed` and `fanwire demo` have in common."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import attrs

from fanwire.client import BufferFull, Client

from .prices import TOPIC_PREFIX, Bar, read_bars, trading_days
from .random_walk import random_walk
from .schedule import Due, Pace, by_group, evenly

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
DEFAULT_SPEED = 10.0
"""Trading days a second: thirteen years in five and a half minutes."""

OUTGOING = 1024
"""Bars that may wait to be sent: while the broker is away a feed stands still, for nobody wants old prices."""

_BURST = 256  # bars published between two checkpoints when the feed is late


@attrs.frozen(slots=True)
class Feed:
    """Which bars, and how fast."""

    symbols: tuple[str, ...] = ()
    """All five of the real ones when empty."""
    since: str = ""
    """The first date of the real prices, ISO 8601."""
    speed: float = DEFAULT_SPEED
    """Trading days a second, of a random walk: bars of each symbol a second."""
    rate: float | None = None
    """Bars a second, of all symbols together; takes the place of `speed`."""
    seed: int | None = None
    """Of a random walk; the real prices when `None`."""
    loop: bool = False
    """Begin anew after the last real price."""

    def schedule(self) -> Iterator[Due[Bar]]:
        """Every bar with the second it is due, in order.

        Raises:
            ValueError: there are no such prices.
        """
        return self._real() if self.seed is None else self._walk(self.seed)

    def topics(self) -> list[str]:
        """Where its bars are published."""
        return [f"{TOPIC_PREFIX}.{symbol}" for symbol in self.symbols or SYMBOLS]

    def _real(self) -> Iterator[Due[Bar]]:
        bars = read_bars(self.symbols, since=self.since)
        rounds = repeat(bars) if self.loop else repeat(bars, 1)
        if self.rate is not None:
            return evenly(chain.from_iterable(rounds), rate=self.rate)
        return by_group(chain.from_iterable(map(trading_days, rounds)), speed=self.speed)

    def _walk(self, seed: int) -> Iterator[Due[Bar]]:
        symbols = self.symbols or SYMBOLS
        return evenly(random_walk(symbols, seed=seed), rate=self.rate or self.speed * len(symbols))


@attrs.define(slots=True)
class Progress:
    """How far a feed has come; whoever ends it can still read it."""

    published: int = 0
    bar: Bar | None = None
    """The last one published."""


async def publish_bars(
    client: Client, schedule: Iterator[Due[Bar]], progress: Progress, wants: Callable[[str], bool] | None = None
) -> None:
    """Publish every bar when it is due, fire and forget, until there are no more.

    Args:
        client: Whose connection.
        schedule: The bars.
        progress: Kept up to date.
        wants: Whether a topic is published at the moment; time goes on for the others, too. None: all of them.
    """
    pace = Pace()
    for number, (due, bar) in enumerate(schedule):
        if number % _BURST == 0 or not pace.late(due):
            await pace.until(due)
        if wants is not None and not wants(bar.topic):
            continue
        await _publish(client, bar)
        progress.published += 1
        progress.bar = bar
    await client.flush()


async def _publish(client: Client, bar: Bar) -> None:
    try:
        client.publish_nowait(bar.topic, bar.to_data())
    except BufferFull:  # the broker is slower than the rate that was asked for, or away: wait for it
        await client.flush()
        client.publish_nowait(bar.topic, bar.to_data())
