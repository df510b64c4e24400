"""Acknowledged publishes without waiting for each: a window of them is on the way."""

from __future__ import annotations

from collections.abc import Mapping
from threading import get_ident
from time import perf_counter
from types import TracebackType

import trio

from ..checkpoints import MESSAGES_A_CHECKPOINT, SECONDS_A_CHECKPOINT
from ..checks import check_count
from ..errors import FanwireError
from ..exchange.answers import Requests, Result
from ..exchange.outgoing import Outgoing
from .encoder import Publisher, options_of
from .result import PublishResult, result_of

# Errors kept to be raised together. The first few say it all.
KEPT_ERRORS = 100


class Pipeline:
    """Use it as a context manager. Leaving it waits until every publish was acknowledged.

    What fails is collected and raised, as an ``ExceptionGroup`` of `FanwireError`, by the next `publish`, or at the
    end of the block. Publishing passes a checkpoint every 64 messages or every millisecond, whichever comes first,
    and whenever the window is full.

    `newest` is the last answer so far. A publisher that would rather slow down than see subscribers lose messages looks
    at its ``lagging`` now and then::

        async with client.pipeline() as pipe:
            for data in measurements:
                await pipe.publish("plant.heat", data)
                if pipe.newest and pipe.newest.lagging:
                    await trio.sleep(0.1)
    """

    def __init__(self, requests: Requests, outgoing: Outgoing, publisher: Publisher, window: int) -> None:
        """Made by `Client.pipeline`."""
        check_count("window", window)
        self._requests = requests
        self._outgoing = outgoing
        self._home = outgoing.home
        self._thread = outgoing.home.thread
        self._entered = False
        self._publisher = publisher
        self._window = window
        self._unanswered: dict[int, None] = {}
        self._progress = trio.lowlevel.ParkingLot()
        self._errors: list[FanwireError] = []
        self._budget = 0
        self._give_way_at = 0.0
        self._newest: Result | None = None
        self.acknowledged = 0
        """Publishes that the broker has taken."""
        self.failures = 0
        """Publishes that it has not, or of which nobody knows."""

    @property
    def newest(self) -> PublishResult | None:
        """What the broker said about the last publish that it has answered; None before."""
        return None if self._newest is None else result_of(self._newest)

    async def __aenter__(self) -> Pipeline:
        self._home.check()
        await trio.lowlevel.checkpoint()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._home.check()
        self._entered = False
        try:
            if error is None:
                await self.drain()
        finally:
            for number in self._unanswered:
                self._requests.forget(number)

    async def publish(
        self,
        topic: str,
        data: object,
        *,
        raw: bool = False,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        retain: bool | None = None,
        msg_id: str | None = None,
    ) -> None:
        """Publish; waits only while the window is full.

        Args:
            topic: Where to.
            data: As for `Client.publish`.
            raw: As for `Client.publish`.
            headers: As for `Client.publish`.
            key: As for `Client.publish`.
            retain: As for `Client.publish`.
            msg_id: As for `Client.publish`, but nothing is repeated by itself: who finds that a publish has failed
                with `ConnectionLost` can publish again with the same one.

        Raises:
            ExceptionGroup: Earlier publishes have failed. This one was not sent.
            LocalProtocolError: This one cannot be sent.
            RuntimeError: The pipeline was not entered, or was left.
        """
        if get_ident() != self._thread:
            raise self._home.elsewhere()
        if not self._entered:
            raise RuntimeError("a pipeline takes publishes while it is entered: async with client.pipeline() as pipe:")
        if self._errors:
            self._raise()
        if len(self._unanswered) >= self._window:
            await self._wait_for_room()
        elif self._budget <= 0 or perf_counter() >= self._give_way_at:
            await self._give_way()
        self._budget -= 1
        number = self._requests.number()
        publisher = self._publisher
        options = options_of(headers, key, retain, msg_id)
        envelope = publisher.encode(publisher.packed_number(number), topic, data, raw, options)
        publish = await self._outgoing.add_when_possible(envelope)
        self._unanswered[number] = None
        self._requests.expect(number, self, publish)

    async def drain(self) -> None:
        """Wait until every publish so far was answered.

        Raises:
            ExceptionGroup: Some have failed.
        """
        self._home.check()
        await trio.lowlevel.checkpoint()
        while self._unanswered:
            await self._progress.park()
        if self._errors:
            self._raise()

    async def _wait_for_room(self) -> None:
        await self._give_way()
        # Half the window at once: waking up for every single answer would cost more than the publish.
        while len(self._unanswered) > self._window // 2:
            await self._progress.park()
        if self._errors:
            self._raise()

    async def _give_way(self) -> None:
        await trio.lowlevel.checkpoint()
        self._budget = MESSAGES_A_CHECKPOINT
        self._give_way_at = perf_counter() + SECONDS_A_CHECKPOINT

    def answered(self, number: int, result: Result) -> None:
        """See `Waiter`."""
        del self._unanswered[number]
        self.acknowledged += 1
        self._newest = result
        self._wake()

    def failed(self, number: int, error: FanwireError) -> None:
        """See `Waiter`."""
        del self._unanswered[number]
        self.failures += 1
        self._wake()
        if len(self._errors) < KEPT_ERRORS:
            self._errors.append(error)

    def _wake(self) -> None:
        if self._progress and (len(self._unanswered) <= self._window // 2):
            self._progress.unpark_all()

    def _raise(self) -> None:
        errors, self._errors = self._errors, []
        raise ExceptionGroup(f"{self.failures} of {self.failures + self.acknowledged} publishes failed", errors)
