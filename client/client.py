"""The client: what a program holds in its hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import get_ident
from types import TracebackType
from typing import Any, NoReturn, Unpack, get_args

import attrs
import trio

from fanwire.protocol import (
    Fetch,
    Ping,
    Presence,
    PublishOptions,
    Replay,
    Subscribe,
    SubscribeOptions,
    check_pattern,
    encode,
)
from fanwire.protocol.fields import bad_option
from fanwire.protocol.reserved import DEMAND

from .checks import check_flag, check_text, check_word
from .config import OnFull, OnSlow, OnSlowReconnect, OnStale, Options, Settings, SubscriptionSettings
from .connecting.link import Link
from .connecting.outages import Outages
from .errors import ConnectionLost, FanwireError
from .exchange.answers import Request, Requests, Result
from .exchange.deadlines import Deadlines
from .exchange.outgoing import Outgoing
from .following.demand import Demand
from .following.history import History, last_of
from .following.presence import Member, PresenceWatch, members
from .home import Home, check_trio
from .message import Message
from .publishing.encoder import Publisher, options_of
from .publishing.pipeline import Pipeline
from .publishing.result import PublishResult, result_of
from .requesting.replies import Replies
from .requesting.requester import Question, Requester
from .requesting.service import Service
from .states import State, StateIterator, States
from .subscribing.buffer_options import BufferOptions
from .subscribing.hints import warn_of
from .subscribing.position import Beginning
from .subscribing.queue_groups import Worker
from .subscribing.silence import Clock, Silence
from .subscribing.subscription import Subscription
from .subscribing.wire_subscriptions import Feeds
from .url import DEFAULT_URL, Address, parse_url


def connect(url: str = DEFAULT_URL, **settings: Unpack[Settings]) -> Connecting:
    """Connect to a broker, stay connected while the block runs, close at its end.

    What was published is sent before the connection is closed, if that takes no longer than ``close_timeout_s`` and the
    block ends without an exception. An exception of the block comes out as it is, in no group; so does Ctrl-C, as a
    plain KeyboardInterrupt.

    Args:
        url: ``ws://host:port/`` or ``wss://…``; see `fanwire.client.url.parse_url`.
        **settings: See `Options`, which explains each of them.

    Returns:
        Something to use with ``async with``, in a program that runs on trio; it gives the `Client`, connected. Entering
        it raises `ConnectionFailed` if the first connection could not be made (`Refused`: the broker does not want
        us), and RuntimeError where trio does not run.

    Raises:
        ValueError: The URL or a setting is wrong.
        TypeError: The URL or a setting has the wrong type, or there is no setting of that name.
    """
    return Connecting(parse_url(url), Options.of(settings))


class Connecting(AbstractAsyncContextManager["Client"]):
    """A client to be: what `connect` returns. Use it with ``async with``."""

    def __init__(self, address: Address, options: Options) -> None:
        """Made by `connect`."""
        self._manager = _connected(address, options)
        self._home: Home | None = None

    # Ctrl-C never strikes in here, and in no task of the client's own: trio raises it in the program's main task, or
    # at the next checkpoint of it.
    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Client:
        check_trio()
        if self._home:
            raise RuntimeError("a connection can be entered once; call fanwire.connect(…) again")
        self._home = Home()
        return await self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._home:
            self._home.check()
        return await self._manager.__aexit__(kind, error, traceback)

    def __await__(self) -> NoReturn:
        """Say what was forgotten."""
        raise RuntimeError(_NOT_ENTERED)

    def __getattr__(self, name: str) -> NoReturn:
        """Say what was forgotten: whoever asks for a method of `Client` has not entered this."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise RuntimeError(_NOT_ENTERED)


_NOT_ENTERED = "a connection is made when it is entered: async with fanwire.connect(…) as client:"


@asynccontextmanager
async def _connected(address: Address, options: Options) -> AsyncIterator[Client]:
    client = Client(address, options)
    failure: BaseException | None = None
    others: BaseExceptionGroup[BaseException] | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                nursery.start_soon(client._link.run)
                nursery.start_soon(client._clock.run)
                await client._link.opened()
                yield client
            except BaseException as error:
                failure = error
                raise
            finally:
                try:
                    await client._link.stop(flush=failure is None)
                finally:
                    client._clock.stop()
    except BaseExceptionGroup as group:
        # The nursery puts what the block raised into a group. Taken out again, unless something else went wrong too.
        if len(group.exceptions) > 1 or group.exceptions[0] is not failure:
            others = group
    if others is not None:
        raise _interrupt_in(others) or others
    if failure is not None:
        raise failure


def _interrupt_in(group: BaseExceptionGroup[BaseException]) -> KeyboardInterrupt | None:
    """Ctrl-C among what went wrong: it alone comes out, and tells of the rest."""
    interrupts, rest = group.split(KeyboardInterrupt)
    if interrupts is None:
        return None
    interrupt = KeyboardInterrupt()
    interrupt.__cause__ = rest
    return interrupt


class Client:
    """A connection to a broker, kept up. Comes from `connect`; may be used by any number of tasks of one trio
    program."""

    def __init__(self, address: Address, options: Options) -> None:
        """Does nothing yet; use `connect`."""
        self._requests = Requests()
        self._outgoing = Outgoing(options)
        self._home = self._outgoing.home
        self._states = States(self._home)
        self._thread = self._home.thread
        self._publisher = Publisher(self._outgoing)
        outages = Outages(address)
        deadlines = Deadlines()
        self._feeds = Feeds(self._requests, self._outgoing, options, deadlines, outages)
        self._link = Link(
            address, options, self._states, self._requests, self._feeds, self._outgoing, deadlines, outages
        )
        self._requester = Requester(self._link, self._states, self._feeds, self._outgoing, self._publisher, deadlines)
        self._clock = Clock(self._link)
        self._publish_nowait = self._publisher.publish_nowait

    # ------------------------------------------------------------ publishing

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
        expect: int | None = None,
    ) -> PublishResult:
        """Publish, and wait until the broker has taken it.

        No publish waits for slow subscribers (unless the broker's operator wants that for the topic: ``publisher_wait``
        of a rule). A publisher that would rather slow down than see them lose messages looks at the result's
        ``lagging``.

        Args:
            topic: Where to.
            data: What msgpack can say: None, bool, int, float, str, bytes, lists, dicts.
            raw: Send ``data``, bytes or str, as it is: subscribers get the same bytes (or str), and other programs need
                no msgpack to read it.
            headers: Text to text, beside the data.
            key: For subscribers that conflate, or ask for a rate: only messages of the same topic and key replace each
                other. One topic can so carry many things that each have a newest state.
            retain: Whether it is the topic's last value from now on, which subscribers can begin with (``snapshot``);
                with ``data=b"", raw=True`` the topic has none any more. None: as the topic's rule has it.
            msg_id: Names this publish. One that the broker has taken already (of the last few thousand of the topic) is
                not delivered again, so the publish is repeated by itself when the connection goes before the answer
                came. For topics that keep history.
            expect: The topic's head as far as you know (`PublishResult.offset` or `Message.offset` of the last one; 0:
                there is none). If somebody else was quicker nothing is published, and the error has the code
                "conflict" and the head in its detail. For topics that keep history.

        Returns:
            What the broker says of it.

        Raises:
            RequestFailed: The broker did not take it.
            ConnectionLost: The connection went before the answer came. Whether it was taken is not known. A publish
                that was not sent yet waits for the next connection instead, unless ``on_outage="raise"``.
            LocalProtocolError: The topic, the data or the size is wrong; nothing was sent.
        """
        self._home.check()
        options = options_of(headers, key, retain, msg_id, expect)
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                return await self._publish(topic, data, raw, options)
            except ConnectionLost:
                if msg_id is None or self._outgoing.outage:
                    raise

    async def _publish(self, topic: str, data: object, raw: bool, options: PublishOptions) -> PublishResult:
        publisher, number = self._publisher, self._requests.number()
        envelope = publisher.encode(publisher.packed_number(number), topic, data, raw, options)
        publish = await self._outgoing.add_when_possible(envelope)
        return result_of(await self._answer(number, publish))

    def publish_nowait(
        self,
        topic: str,
        data: object,
        *,
        raw: bool = False,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        retain: bool | None = None,
    ) -> None:
        """Publish without waiting, and without an answer; what is published together travels together.

        Messages of one client arrive in the order published. If the connection breaks those on the way are lost; those
        that were not sent yet are sent on the next one.

        Args:
            topic: As for `publish`.
            data: As for `publish`.
            raw: As for `publish`.
            headers: As for `publish`.
            key: As for `publish`.
            retain: As for `publish`.

        Raises:
            BufferFull: Too much waits to be sent; ``await client.flush()`` waits until it is.
            ConnectionLost: There is no connection, and ``on_outage="raise"``.
            LocalProtocolError: The topic, the data or the size is wrong.
        """
        if get_ident() != self._thread:
            raise self._home.elsewhere()
        self._publish_nowait(topic, data, raw, headers, key, retain)

    async def flush(self) -> None:
        """Wait until all that was published so far was handed to the operating system.

        Raises:
            ConnectionLost: There is no connection, and none will come, or ``on_outage="raise"``.
        """
        self._home.check()
        await self._outgoing.flush()

    def pipeline(self, window: int = 1024) -> Pipeline:
        """Acknowledged publishes without waiting for each one.

        Args:
            window: Publishes that may be unanswered at a time.
        """
        self._home.check()
        return Pipeline(self._requests, self._outgoing, self._publisher, window)

    # ----------------------------------------------------------- subscribing

    def subscribe(
        self,
        pattern: str,
        *,
        queue: int | None = None,
        on_slow: OnSlow = "disconnect",
        max_rate: float | None = None,
        group: str | None = None,
        echo: bool = True,
        snapshot: bool = False,
        replay: Replay | Mapping[str, Any] | None = None,
        recover: bool = True,
        on_slow_reconnect: OnSlowReconnect = "raise",
        buffer: int = BufferOptions.BUFFER,
        buffer_bytes: int = BufferOptions.BUFFER_BYTES,
        on_full: OnFull = "disconnect",
        report_loss: bool = False,
        heartbeat_s: float | None = None,
        on_stale: OnStale = "yield",
    ) -> Subscription:
        """Subscribe to a topic, or to all topics that a pattern matches.

        Two queues stand between publisher and handler. ``queue``, ``on_slow`` and ``max_rate`` are for the broker's,
        which fills when the network or this process does not keep up; the client always reads, so a slow handler fills
        ``buffer``, and ``on_full`` is for that: "disconnect" ends this subscription with `SlowConsumer` and leaves the
        connection and its other subscriptions alone.

        The broker's operator may cap or force what is asked of the broker; `Subscription.granted` says what was
        granted, `Subscription.change` asks for something else later.

        Args:
            pattern: ``*`` stands for one token, a final ``>`` for one or more.
            queue: Messages that may wait at the broker; None: as it likes.
            on_slow: What the broker does when more would wait. "disconnect": it closes the connection, the subscription
                ends with `SlowConsumer`, and the client's others go on after a reconnect. "unsubscribe": it ends this
                subscription only. "drop_oldest", "drop_newest": it loses messages, and says how many in the place where
                they are missing. "conflate": of each topic (or topic and key) only the newest waits; what it replaces
                does not count as lost.
            max_rate: Messages per second and topic (and key) at most: one that comes too soon is held, and replaced by
                newer ones, until it is due. Implies ``on_slow="conflate"``.
            group: The name of a queue group: of all who subscribe to the pattern in it, each message goes to one, to
                the one that has the least to do. A message is finished when the loop comes back for the next one; what
                this program has not finished when it leaves, ends or stalls goes to another member, with
                `Message.redelivered`. Two subscriptions of this client in the same group share the client's part of the
                work. It cannot be had with ``snapshot``, ``replay`` or ``heartbeat_s``.
            echo: Whether also what this client publishes comes back to it. ``snapshot``, ``replay`` and what is caught
                up on after a break bring it in any case: the broker does not remember who published it. False cannot be
                had with ``heartbeat_s``.
            snapshot: Begin with the last value of each matching topic that has one.
            replay: Begin with history: ``{"last": n}`` messages of each topic, all ``{"since": µs}`` (as
                `Message.time`), or ``{"offset": o, "epoch": e}``, after the last message that you had (see
                `Subscription.epoch`); for a pattern ``{"offsets": {topic: offset}, "epoch": e}``.
            recover: After a break of the connection go on with what was published meanwhile, where the broker keeps
                history. `Subscription.recovered` says whether all of it has come. False: with what is published then.
            on_slow_reconnect: What happens here when the broker has ended the subscription for its slowness: "raise"
                `SlowConsumer`, or "conflate": subscribe again, from then on with ``on_slow="conflate"``, after a wait
                if the connection was closed; or "resume": the same with the options that it had. What was missed
                meanwhile comes then, where the broker keeps history; else it counts in `Subscription.gaps`, and is a
                `LostMessages` with reason "slow_consumer".
            buffer: Messages that may wait here.
            buffer_bytes: Bytes that may wait here: of payloads, headers and keys, and some 400 for the Python
                objects and the topic of each message.
            on_full: What happens when more would: "disconnect", "drop_oldest", "drop_newest", or "conflate" (of each
                topic only the newest waits).
            report_loss: Also give `LostMessages` in the place of messages that are missing.
            heartbeat_s: Seconds of silence on a matching topic after which that is told, and again and again as long as
                it lasts: of a pattern without wildcard always, of others for each topic that was seen. Also told when
                it is the connection that is silent: away, or hanging for two to three times as long.
            on_stale: How: "yield" gives a `Stale` in the stream, "raise" ends the subscription with `StaleTopic`.

        Returns:
            Something to use with ``async with``; entering it subscribes.

        Raises:
            LocalProtocolError: The pattern or an option for the broker is wrong.
            ValueError: Another option is.
        """
        self._home.check()
        check_text("pattern", pattern)
        check_flag("recover", recover)
        check_word("on_slow_reconnect", on_slow_reconnect, get_args(OnSlowReconnect))
        wanted = SubscribeOptions(
            queue=queue, on_slow=on_slow, max_rate=max_rate, heartbeat=heartbeat_s, group=group, echo=echo
        )
        begun = attrs.evolve(wanted, snapshot=snapshot, replay=replay)
        Subscribe(1, pattern, begun)  # an option that is wrong is found here
        beginning = Beginning(snapshot, begun.replay, recover)
        options = BufferOptions(buffer, buffer_bytes, on_full, report_loss)
        _check_together(group, begun, echo, heartbeat_s)
        check_word("on_stale", on_stale, get_args(OnStale))
        if heartbeat_s is None and on_stale != "yield":
            raise ValueError(f"on_stale={on_stale!r} needs heartbeat_s: how long is stale?")
        silence = None if heartbeat_s is None else Silence(self._clock, heartbeat_s, on_stale)
        warn_of(pattern)
        kind = Subscription if group is None else Worker
        return kind(self._feeds, pattern, wanted, options, beginning, comes_back=on_slow_reconnect, silence=silence)

    def history(
        self,
        topic: str,
        *,
        last: int | None = None,
        since: int | None = None,
        offset: int | None = None,
        report_loss: bool = False,
    ) -> History:
        """What the broker keeps of a topic's messages, without subscribing, up to the newest one of now.

        Args:
            topic: Which one; it has to keep history.
            last: The newest so many only.
            since: Only what was taken in at that time (microseconds since 1970) or later.
            offset: Only what came after the message with this offset. None of the three: all.
            report_loss: Also give `LostMessages` for what was asked for and is no longer kept.

        Returns:
            Something to use with ``async for``; a page is fetched when it is needed. Iterating raises `RequestFailed`
            (code "not_kept": the topic keeps no history) and `ConnectionLost`.

        Raises:
            LocalProtocolError: An argument is wrong, or two of the three were given.
        """
        self._home.check()
        check_flag("report_loss", report_loss)
        return History(self._ask, Fetch(1, topic, last=last, since=since, offset=offset), report_loss=report_loss)

    async def last(self, topic: str) -> Message | None:
        """A topic's newest message, or retained value; None if the broker remembers none.

        Raises:
            ConnectionLost: There is no connection at the moment, or it went before the answer came.
            RequestFailed: The broker refused.
        """
        return await last_of(self._ask, topic)

    def demand(self, pattern: str = ">") -> Demand:
        """Follow which patterns anybody is subscribed to, so as to publish only what somebody wants.

        Args:
            pattern: What you could publish: only patterns that overlap with it are told of.

        Returns:
            Something to use with ``async with``; iterating gives pairs of a pattern and whether it is wanted.

        Raises:
            LocalProtocolError: The pattern is wrong.
        """
        self._home.check()
        check_text("pattern", pattern)
        warn_of(check_pattern(pattern))
        return Demand(self.subscribe(DEMAND, report_loss=True), pattern)

    async def presence(self, pattern: str) -> list[Member]:
        """Who is subscribed to anything that overlaps with ``pattern``, where the broker's operator lets that be known.

        Returns:
            Every client once for each of its patterns, in the order in which they came. Who has lost the connection a
            moment ago is still among them.

        Raises:
            ConnectionLost: There is no connection at the moment, or it went before the answer came.
            RequestFailed: The broker refused; code "forbidden": presence is off for the pattern, or you may not.
            LocalProtocolError: The pattern is wrong.
        """
        check_text("pattern", pattern)
        warn_of(check_pattern(pattern))
        return await members(self._ask, pattern)

    def watch_presence(self, pattern: str) -> PresenceWatch:
        """Follow who is subscribed to anything that overlaps with ``pattern``.

        Args:
            pattern: What you want to know about. Watching is no subscription: you get no messages, and do not become a
                member by it.

        Returns:
            Something to use with ``async with``; iterating gives pairs of a `Member` and whether it is present.
            Entering it raises `RequestFailed` (code "forbidden") where presence is off, or you may not.

        Raises:
            LocalProtocolError: The pattern is wrong.
        """
        self._home.check()
        check_text("pattern", pattern)
        warn_of(check_pattern(pattern))
        return PresenceWatch(self._feeds, self._requests, self._outgoing, pattern)

    # ---------------------------------------------------- asking, answering

    async def request(
        self,
        topic: str,
        data: object,
        *,
        timeout_s: float = 5.0,
        raw: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        """Publish a request; return the first reply to it. See `serve` for the other side.

        It is sent once, on one connection: without one it waits for it (unless ``on_outage="raise"``), and if that goes
        before the reply has come the request fails. Ask again if asking twice does no harm.

        Args:
            topic: Whom to ask: whoever is subscribed to it.
            data: As for `publish`.
            timeout_s: How long to wait at most, for everything.
            raw: As for `publish`.
            headers: As for `publish`.

        Raises:
            NoResponders: Nobody is subscribed to the topic. That is known at once.
            RequestTimeout: No reply came in time.
            ConnectionLost: The connection went before a reply came; whether anybody got the request is not known.
            RequestFailed: The broker refused it.
            LocalProtocolError: The topic, the data or the size is wrong, or 10,000 requests of this client wait
                already.
        """
        return await self.request_many(topic, data, timeout_s=timeout_s, most=1, raw=raw, headers=headers).first()

    def request_many(
        self,
        topic: str,
        data: object,
        *,
        timeout_s: float = 5.0,
        most: int | None = None,
        raw: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Replies:
        """The same for several replies: of one who has much to say, or of all who are subscribed.

        Args:
            topic: As for `request`.
            data: As for `request`.
            timeout_s: When to end, however many replies have come.
            most: End after so many; None: only when the time is up, or when you leave the block.
            raw: As for `request`.
            headers: As for `request`.

        Returns:
            Something to use with ``async with``; entering it sends the request, iterating gives the replies.

        Raises:
            ValueError: ``timeout_s`` or ``most`` is wrong.
        """
        self._home.check()
        check_text("topic", topic)
        check_flag("raw", raw)
        return Replies(self._requester, Question(topic, data, raw, headers), timeout_s, most)

    def serve(self, pattern: str, **options: Unpack[SubscriptionSettings]) -> Service:
        """Answer requests on a topic, or on all topics that a pattern matches.

        Everybody who serves a topic, or is subscribed to it, gets each request; of those in one queue group (``group``)
        one does.

        Args:
            pattern: As for `subscribe`.
            **options: All those of `subscribe`.

        Returns:
            Something to use with ``async with``; iterating gives each `Request`, which has ``data`` and ``reply``.

        Raises:
            LocalProtocolError: The pattern or an option for the broker is wrong.
            ValueError: Another option is.
        """
        return Service(self.subscribe(pattern, **options), self._reply)

    async def _reply(self, topic: str, data: object, raw: bool, headers: Mapping[str, str] | None) -> None:
        self._home.check()
        if topic:
            await self._outgoing.send_at_once(self._publisher.encode_reply(topic, data, raw, headers))
        else:
            await trio.lowlevel.checkpoint()

    # -------------------------------------------------------- the connection

    async def ping(self) -> float:
        """Ask the broker for a sign of life; return how long it took, in seconds.

        Raises:
            ConnectionLost: There is no connection at the moment, or it went before the answer came.
        """
        self._home.check()
        began = trio.current_time()
        await self._ask(Ping(1))
        return trio.current_time() - began

    async def _ask(self, request: Ping | Fetch | Presence) -> Result:
        """The answer to a request that belongs to the present connection; it gets a number."""
        self._home.check()
        if self._link.error:
            raise self._link.error.with_traceback(None)
        number = self._requests.number()
        self._outgoing.add_control(encode(attrs.evolve(request, id=number)))
        return await self._answer(number, 0)

    async def _answer(self, number: int, publish: int) -> Result:
        request = Request()
        self._requests.expect(number, request, publish)
        try:
            return await request.result()
        finally:
            self._requests.forget(number)

    @property
    def state(self) -> State:
        """How the connection is."""
        return self._states.current

    def states(self) -> StateIterator:
        """Follow how the connection is: the present `State`, then every change, ending after "closed"."""
        self._home.check()
        return self._states.listen()

    @property
    def error(self) -> FanwireError | None:
        """Why there is no connection at the moment; None if there is one."""
        return self._link.error

    @property
    def welcome(self) -> Mapping[str, Any]:
        """What the broker told of itself: session, server, version, max_message …"""
        return self._link.welcome


def _check_together(group: str | None, begun: SubscribeOptions, echo: bool, heartbeat_s: float | None) -> None:
    """Raise LocalProtocolError for options of SUBSCRIBE that cannot be had together."""
    if group is not None and begun.snapshot:
        raise bad_option("snapshot", "option 'snapshot' cannot be had with 'group': its members share one stream")
    if group is not None and heartbeat_s is not None:
        raise bad_option(
            "heartbeat", "option 'heartbeat_s' cannot be had with 'group': another member may get what comes"
        )
    if not echo and heartbeat_s is not None:
        raise bad_option(
            "heartbeat", "option 'heartbeat_s' cannot be had with 'echo=False': own messages break silence"
        )
