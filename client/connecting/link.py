"""Keeping a connection up: opening it, noticing its end, waiting, opening the next one.

One task, `Link.run`, does all of it, one connection at a time, each in a nursery of its own. Only `Link.stop` ends
it, so that a cancelled program still says goodbye to the broker.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import trio

from fanwire.protocol import Hello, encode
from fanwire.version import __version__

from ..config import Options
from ..errors import Closed, ConnectionFailed, FanwireError, Refused
from ..exchange.answers import Requests
from ..exchange.deadlines import Deadlines
from ..exchange.outgoing import Outgoing
from ..states import State, States
from ..subscribing.wire_subscriptions import Feeds
from ..url import Address
from .backoff import Backoff
from .connection import Connection, Ending
from .outages import Outages
from .receiver import Receiver
from .token_renewal import Renewal, token_of

AGENT = f"fanwire-python/{__version__}"


class Link:
    """A client's connections, one after the other."""

    def __init__(
        self,
        address: Address,
        options: Options,
        states: States,
        requests: Requests,
        feeds: Feeds,
        outgoing: Outgoing,
        deadlines: Deadlines,
        outages: Outages,
    ) -> None:
        self._outages = outages
        self._address = address
        self._options = options
        self._states = states
        self._requests = requests
        self._feeds = feeds
        self._outgoing = outgoing
        self._deadlines = deadlines
        self._backoff = Backoff(options)
        self._client = secrets.token_hex(16)  # by which the broker knows us again; a secret between the two
        self._scope = trio.CancelScope()
        self._connection: Connection | None = None  # while it can be used
        self._closing = False
        self._opened = trio.Event()
        self._failure: FanwireError | None = None
        self.error: FanwireError | None = None
        """Why the last connection ended, if there is none now."""
        self.lost_at = 0.0
        """When the last connection ended, on trio's clock."""
        self.welcome: Mapping[str, Any] = {}
        """What the broker told of itself."""

    def heard(self) -> tuple[object, int] | None:
        """The connection, and how many bytes have come over it; None: there is none at the moment."""
        connection = self._connection
        return None if connection is None else (connection, connection.stream.bytes_received)

    def holding(self) -> bool:
        """Whether nothing is read from it: a handler has to take its replay first."""
        return self._feeds.holding()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Runs until no other connection is to be made. `opened` says what became of the first one."""

        def started() -> None:
            self._scope.shield = True
            self._opened.set()

        try:
            with self._scope:
                ending = await self._live(started)
                if not self._scope.shield:
                    self._failure = ending.error
                    return
                while self._wants_another(ending):
                    self._states.set(State.WAITING)
                    await trio.sleep(self._backoff.next_wait(ending.hint_s))
                    self._states.set(State.CONNECTING)
                    ending = await self._live(lambda: None)
                if not self._closing:
                    self._outages.ended(ending.error)
            self._finish(self.error if self.error and not self._closing else Closed("the client was closed"))
        finally:
            self._opened.set()

    async def opened(self) -> None:
        """Wait until the first connection stands. (`trio.Nursery.start` would do it, but not when Ctrl-C comes.)

        Raises:
            ConnectionFailed: It could not be made.
        """
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    def _wants_another(self, ending: Ending) -> bool:
        return ending.again and self._options.reconnect and not self._closing

    async def stop(self, *, flush: bool) -> None:
        """End: send what waits if ``flush``, say goodbye; all within the closing timeout each. Not to be cancelled."""
        try:
            if flush and self._connection:
                with trio.move_on_after(self._options.close_timeout_s, shield=True):
                    await self._outgoing.flush()
        except FanwireError:
            pass
        finally:  # also when Ctrl-C comes meanwhile: trio raises it here, shield or not
            self._closing = True
            if self._connection:
                self._connection.end()
            else:
                self._scope.cancel()

    # -------------------------------------------------------- one connection

    async def _live(self, started: Callable[[], None]) -> Ending:
        """One connection from beginning to end. ``started`` is called when it can be used."""
        connection = Connection(self._address, self._options, first=not self.welcome)
        receiver = Receiver(self._requests, self._feeds, connection.end, self._options.most_taken)
        grace_s = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deadlines.run)
            try:
                ending = await self._open(connection, receiver, nursery)
                if ending is None:
                    grace_s = self._options.close_timeout_s
                    ending = await self._serve(connection, receiver, started)
            finally:
                await connection.close(grace_s)
                nursery.cancel_scope.cancel()
        self._lost(ending, receiver)
        if self._wants_another(ending):
            (self._outages.lost if receiver.welcome else self._outages.failed)(ending.error)
        return ending

    async def _open(self, connection: Connection, receiver: Receiver, nursery: trio.Nursery) -> Ending | None:
        """Until WELCOME. Returns how it failed, None if it did not."""
        try:
            with trio.fail_after(self._options.connect_timeout_s):
                await connection.open(nursery, receiver, await token_of(self._options.token))
                self._outgoing.begin(connection.mask)
                most = self._options.most_taken
                hello = Hello(0, name=self._options.name, agent=AGENT, client=self._client, max_message=most)
                self._outgoing.add_control(encode(hello))
                await self._outgoing.write_control(connection.stream)
                await receiver.welcomed.wait()
        except ConnectionFailed as failed:
            return Ending(failed, again=not isinstance(failed, Refused), hint_s=connection.retry_after_s)
        except trio.TooSlowError:
            return Ending(self._too_slow(), again=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if receiver.welcome:
            return None
        ending = connection.ending()
        error = ending.error if isinstance(ending.error, Refused) else ConnectionFailed(str(ending.error))
        return Ending(error, ending.again, ending.hint_s)

    def _too_slow(self) -> ConnectionFailed:
        return ConnectionFailed(
            f"{self._address} did not become a connection within {self._options.connect_timeout_s:g} s"
            " (connect_timeout_s); is that a fanwire broker?"
        )

    async def _serve(self, connection: Connection, receiver: Receiver, started: Callable[[], None]) -> Ending:
        """While it can be used."""
        assert receiver.welcome
        if self.welcome:
            self._outages.back()
        self.welcome = receiver.welcome.greeting
        began = trio.current_time()
        self._connection = connection
        self.error = None
        try:
            async with trio.open_nursery() as nursery:
                self._outgoing.limit_to(self.welcome["max_message"])
                self._feeds.resubscribe()
                nursery.start_soon(self._outgoing.write, connection.stream)
                nursery.start_soon(connection.watch_for_silence)
                nursery.start_soon(Renewal(self._options.token, self._requests, self._outgoing).run, self.welcome)
                self._states.set(State.CONNECTED)
                started()
                await connection.ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            self.lost_at = trio.current_time()
        ending = connection.ending()
        self._backoff.lived(trio.current_time() - began, too_slow=ending.too_slow)
        return ending

    def _lost(self, ending: Ending, receiver: Receiver) -> None:
        self.error = ending.error
        self._feeds.lost(receiver.goodbye, ending.error)
        self._outgoing.lost(ending.error)
        self._requests.lost(ending.error, self._outgoing.written)

    def _finish(self, error: FanwireError) -> None:
        self.error = error
        self._feeds.close(error)
        self._outgoing.close(error)
        self._requests.lost(error, None)
        self._states.set(State.CLOSED)
