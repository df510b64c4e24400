"""One client's connection, from its first byte to its last.

The session owns the socket (through `FrameStream`), the outbox and every task of the connection. Others that find it
at fault (a sweep, the watchdog, a drain) call `end` with what is to be said; the session's own task carries it out.
"""

from __future__ import annotations

import math
import random
import secrets
from functools import partial
from typing import TYPE_CHECKING

import msgpack
import trio
import trio_websocket

from fanwire.protocol import MAX_BATCH, Error, Welcome, encode
from fanwire.protocol.frames import Fault, Opcode, frame_header
from fanwire.protocol.reserved import INBOX, tells_of_the_broker
from fanwire.transport import FrameStream
from fanwire.version import __version__

from ..delivery.outbox import Outbox, Owner, SlowConsumer
from ..delivery.subscription import Subscription
from ..network.arrival import arrive, look_over
from ..network.handshake import PlainRequest, Refused, read_opening
from ..network.origin_check import cors
from ..network.peer import Peer
from ..options.queue_groups import GroupRoute
from ..options.replay import Replaying, Wish
from ..options.throttle import Limiter
from ..requests.asker import publish_one
from ..telemetry.closed import ClosedConnection
from ..telemetry.text import shown
from ..timing.clock import wall_clock_us
from ..timing.timers import Watched
from ..timing.turn import Turn
from . import disconnects
from .authentication import admit, equip, is_ambient, look_again, note_expired, note_turned_away
from .disconnects import Ending
from .ingress import Ingress
from .leftovers import end_parser

if TYPE_CHECKING:
    from typing import Any

    from ..auth.authenticator import Authenticator
    from ..auth.identity import Identity
    from ..auth.permissions import Permissions
    from ..delivery.routes import Registry, Route, Topic
    from ..limits.addresses import Address
    from ..limits.publish_meter import Meter
    from ..limits.users import User
    from ..settings.config import Config
    from ..settings.rules import Grant
    from ..settings.tls import LoadedTls
    from .hub import Hub

_pack = msgpack.Packer().pack

# Bytes of a message before WELCOME, where HELLO has to come first. Any token that fits into a request head fits into
# HELLO: that has four times the bytes. 2,000 strangers (`max_opening`) may owe the rest of one each: 125 MiB.
MAX_BEFORE_WELCOME = 64 * 1024

_PING = frame_header(0, Opcode.PING)

# How often, in seconds, the clocks of a connection look at most whether one of its subscriptions lags.
LAG_LOOK_S = 0.25

# What the kernel of a client acknowledges for a ping, at most, also inside a TLS record: no sign of life.
_PING_ACKNOWLEDGED = 64


class Session(Owner, Watched):
    """A connection. `Hub` has what it shares with the others."""

    __slots__ = (
        "_active",
        "_clearing",
        "_connection",
        "_heard",
        "_ingress",
        "_judged",
        "_nursery",
        "_ping_due",
        "_pinged",
        "_pings",
        "_plain",
        "_serving",
        "_taken",
        "_unacked",
        "_watch",
        "_welcome_due",
        "_writer",
        "accepted_by",
        "account",
        "address",
        "admin",
        "agent",
        "client",
        "config",
        "ending",
        "expires",
        "forbidden",
        "gone_lost",
        "gone_replaced",
        "hub",
        "id",
        "identified_at",
        "identity",
        "inbox",
        "meter",
        "name",
        "opened_at",
        "opened_time_us",
        "outbox",
        "peer",
        "permissions",
        "stream",
        "vouched",
        "welcomed",
        "writing",
    )

    outbox: Outbox
    stream: FrameStream
    request_id = None

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.config: Config = hub.config
        self.id = secrets.token_hex(8)
        self.inbox = INBOX + secrets.token_hex(16)  # cannot be guessed; what lies below it may be subscribed to
        """What it may subscribe to for replies, and nobody else."""
        self.peer = Peer()
        self.vouched = False
        """Whether who it is was asked before it began (`vouch`)."""
        """Who is at the other end, as far as the network knows (see `arrival`)."""
        self.name = ""
        self.agent = ""
        self.client: str | None = None
        """What makes it the same client after a reconnect, as it says (`members`)."""
        self.identity: Identity | None = None
        """Who it is (see `authentication`); None: nobody asks, or it has not said."""
        self.permissions: Permissions | None = None
        """What it may do; None: nobody asks."""
        self.accepted_by: Authenticator | None = None
        """By whose settings."""
        self.identified_at = -math.inf
        """When it last brought a token by HELLO, on trio's clock."""
        self.expires = math.inf
        """When its token does, on trio's clock."""
        self.admin = False
        """Whether it came to the operators' own port."""
        self.address: Address | None = None
        """Where it comes from; None: nothing is limited there (`admission`)."""
        self.account: User | None = None
        """Its user with all its connections (`users`)."""
        self.meter: Meter | None = None
        """How fast it publishes; None: as fast as it likes (`publish_meter`)."""
        self.forbidden = 0
        """Requests refused for want of a permission."""
        self.opened_at = 0.0
        """When it was entered, on trio's clock."""
        self.opened_time_us = 0
        """The same in microseconds since 1970; 0: it was not entered (yet), or has left."""
        self.gone_lost = self.gone_replaced = 0
        """Of subscriptions that it has no more."""
        self.welcomed = False
        self._judged = False
        self._ingress = Ingress(self)
        self._connection: trio_websocket.WebSocketConnection | None = None
        self._plain: PlainRequest | None = None
        self.ending: Ending | None = None
        """Set as soon as the connection is to be closed; nothing the client sends is listened to any more."""
        self._serving: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        self._writer: trio.CancelScope | None = None
        self.writing: trio.Event | None = None
        """While the outbox is being written out: set when that ends."""
        self._clearing = False  # whether a task throws away what waited of subscriptions that are gone
        self._watch: int | None = None
        self._welcome_due = 0.0
        self._ping_due = 0.0
        self._pinged = False
        self._pings = 0
        self._heard = self._taken = self._unacked = 0  # see `_keep_alive`
        self._active = (0, 0.0)  # messages received when last looked at, and when it was last not idle

    @property
    def remote(self) -> str:
        """Where it comes from, for the log."""
        return self.peer.remote

    @property
    def registry(self) -> Registry:
        """The broker's."""
        return self.hub.registry

    @property
    def account_name(self) -> str | None:
        """The user whose token it has presented; None: anonymous, or nobody asks."""
        return None if self.identity is None else self.identity.user

    @property
    def user(self) -> str:
        """Whom rules are about: the user, where that is asked for; else what it calls itself."""
        if self.hub.authenticator is None:
            return self.name
        return (self.identity and self.identity.user) or ""

    @property
    def epoch(self) -> str:
        """The life of the broker's store."""
        return self.hub.epoch

    @property
    def has_ended(self) -> bool:
        """Whether the connection is about to go."""
        return self.ending is not None

    def turned_away(self, where: str, reason: str, **facts: str) -> None:
        """See `Arriving`."""
        note_turned_away(self, where, reason, **facts)

    @property
    def tls(self) -> LoadedTls | None:
        """See `Arriving`."""
        return self.hub.tls

    def move(self, host: str | None) -> None:
        """See `Arriving`."""
        self.hub.door.move(self, host)

    # -------------------------------------------------------------- its life

    async def run(self, raw: trio.abc.Stream, *, admin: bool = False) -> None:
        """Serve one client to the end. Whatever it does, only its own connection ends; ``raw`` is closed afterwards."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                # No exception passes a nursery that has tasks: the exception, trio's frames and the tasks' Cancelled
                # would form a circle, which only the collector could free.
                try:
                    if admin:
                        await self._serve_admin(raw)
                    else:
                        await self._serve(raw, nursery)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # the peer is gone, or we cut it off
                except Exception as error:
                    self._failed(error)
                finally:
                    self._stop()
                if hasattr(self, "outbox"):
                    await self.outbox.throw_away()  # however it has ended: all at once it would take too long
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception as group:
            self._failed(group)
        finally:
            self._leave()
            try:
                await trio.aclose_forcefully(self.stream if hasattr(self, "stream") else raw)
            finally:
                self._let_go()

    def _failed(self, error: Exception) -> None:
        """A defect of ours, or of a library."""
        self.hub.repeats.say(self, "error", "connection failed", exc_info=error)
        self.hub.counters.count_close(1011)

    def _stop(self) -> None:
        """Whatever the end was: nobody starts a task here any more, and no sweep judges what it finds."""
        if self.ending is None and hasattr(self, "outbox"):
            self.ending = disconnects.GONE
        self._unroute_all()
        self._nursery = None

    async def _serve_admin(self, raw: trio.abc.Stream) -> None:
        """On the operators' port HTTP is all that is spoken."""
        entered = await self._enter(raw, trio.current_time() + self.config.handshake_timeout_s)
        if entered is None:
            self.hub.counters.connections_refused += 1
            return
        self.hub.door.welcomed(self)
        await self.hub.http.serve(entered, address=self.address, admin=True, peer=self.peer)

    async def _serve(self, raw: trio.abc.Stream, nursery: trio.Nursery) -> None:
        due = trio.current_time() + self.config.handshake_timeout_s
        entered = await self._enter(raw, due)
        connection = None if entered is None else await self._open(entered, nursery, due)
        if entered is not None and self._plain is not None:  # no WebSocket, and not refused
            self.hub.door.welcomed(self)
            await self.hub.http.serve(entered, self._plain.received, self.address, peer=self.peer)
            return
        if connection is None:
            self.hub.counters.connections_refused += 1
            return
        self.opened_at = trio.current_time()
        self.hub.enter(self)
        look_again(self)
        if self in self.hub.sessions:
            self.opened_time_us = wall_clock_us()
        if self.ending is None:
            self._start_clocks()
            if not (self.config.require_hello or self.unknown):
                self.welcome()
        self.stream.open()  # also for who is refused: its answer to our close frame has to be read
        with trio.CancelScope() as self._serving:
            if self.ending is None:
                await self._read(connection)
        if self.ending is None:
            self.ending = disconnects.GONE  # by itself: a sweep that still finds something for it must not judge it
            self._unroute_all()
            await self.stream.aclose()
        else:
            await self._part(connection, self.ending)

    @property
    def unknown(self) -> bool:
        """Whether it has yet to say who it is."""
        return self.hub.authenticator is not None and self.identity is None

    async def _enter(self, raw: trio.abc.Stream, due: float) -> trio.abc.Stream | None:
        """What comes before the request (see `arrival`). None: there is nothing to speak HTTP on."""
        try:
            return await arrive(self, raw, due)
        except Refused as refusal:
            await self._refuse(raw, refusal)
            return None

    async def _open(
        self, raw: trio.abc.Stream, nursery: trio.Nursery, due: float
    ) -> trio_websocket.WebSocketConnection | None:
        """The handshake, under its deadline. None: there is no connection, and the client was told why."""
        with trio.move_on_at(due):
            try:
                opening = await read_opening(raw, self.config.path)
                if isinstance(opening, PlainRequest):
                    self._plain = opening
                    return None
                if opening is not None:
                    look_over(self, opening, ambient=is_ambient(self, opening))
                    admit(self, opening)
            except Refused as refusal:
                await self._refuse(raw, refusal)
                return None
            except trio.BrokenResourceError:
                return None  # it was cut off
            if opening is None:
                return None
            self.agent = shown(opening.agent)
            self.stream = FrameStream(
                raw,
                client=False,
                max_message=self._max_message,
                on_messages=self._ingress.on_messages,
                mask=self.hub.mask,
                head=opening.head,
                rest=opening.rest,
                linger_s=self.config.linger_s,
            )
            self.outbox = Outbox(self, self.stream, self.config, self.hub.counters)
            # FrameStream counts and limits sizes itself; trio-websocket's own limit must never be the first to strike.
            request = await trio_websocket.wrap_server_stream(
                nursery, self.stream, max_message_size=2 * self.config.max_message_bytes, receive_buffer_size=None
            )
            try:
                connection = await request.accept(subprotocol=opening.subprotocol)
            except trio_websocket.ConnectionClosed:
                return None  # it hung up
            self._connection = connection
            self.stream.why_closing = self._fault
            self.stream.before_close = self._flush
            return connection
        return None

    @property
    def _max_message(self) -> int:
        """Bytes that a message may have, for one that begins now."""
        most = self.config.max_message_bytes
        waits_for_hello = not self.welcomed and (self.config.require_hello or self.unknown)
        return min(most, MAX_BEFORE_WELCOME) if waits_for_hello else most

    async def _refuse(self, raw: trio.abc.Stream, refusal: Refused) -> None:
        self.hub.repeats.say(self, "info", "handshake refused", refusal.status.value, reason=str(refusal))
        with trio.move_on_after(self.config.linger_s):
            await raw.send_all(refusal.response(cors(refusal.origin, self.config.allowed_origins)))
            if isinstance(raw, trio.abc.HalfCloseableStream):
                await raw.send_eof()
            while await raw.receive_some(4096):  # closing with unread input would reset the response away
                pass

    async def _read(self, connection: trio_websocket.WebSocketConnection) -> None:
        """Take what comes over the slow road; the fast one calls `Ingress` by itself. Ends with the connection."""
        while True:
            try:
                message = await connection.get_message()
            except trio_websocket.ConnectionClosed:
                return
            assert isinstance(message, bytes), "FrameStream refuses text"
            hold = self._ingress.on_messages([message])
            message = b""  # while it waits, it keeps nothing of what was read
            if hold is not None:
                await hold()
                hold = None

    def _leave(self) -> None:
        """The hub forgets this connection. Idempotent, synchronous."""
        self._unroute_all()
        self.hub.leave(self)
        if self.opened_time_us:
            self._note_end()
            if self.stream.refusal is not None and self.stream.refusal.code == 1009:
                self.hub.limits.refuse("max_message", session=self.id, user=self.user)
        if self._watch is not None:
            self.hub.watchdog.forget(self._watch)

    def _note_end(self) -> None:
        ending = self.ending or disconnects.GONE
        code, reason = ending.code, ending.reason
        closed = self._connection.closed if self._connection is not None else None
        if ending is disconnects.GONE and closed is not None and closed.code not in (None, 1006):
            code, reason = closed.code, closed.reason or ""
        self.hub.closed.add(self._closed(code, reason, ending.facts), stranger=not self.welcomed)
        self.opened_time_us = 0

    def _closed(self, code: int, reason: str, facts: dict[str, object]) -> ClosedConnection:
        lost, replaced = self.totals()
        return ClosedConnection(
            session=self.id,
            name=shown(self.name),
            user=self.account_name and shown(self.account_name),
            address=self.peer.address,
            code=code,
            reason=shown(reason),
            closed_time_us=wall_clock_us(),
            lasted_s=trio.current_time() - self.opened_at,
            lost=lost,
            replaced=replaced,
            facts=facts,
        )

    def _let_go(self) -> None:
        """Cut the circles through stream and outbox: what it held is free now, not when the collector comes by."""
        if self._connection is not None:
            end_parser(self._connection)
            self._connection = None
        del self._ingress
        if hasattr(self, "outbox"):
            self.outbox.close()
            del self.outbox, self.stream

    def _unroute_all(self) -> None:
        """Nothing more is gathered for this connection. Idempotent, synchronous."""
        if hasattr(self, "outbox"):
            self.outbox.leaving = True
            for subscription in self.outbox.subscriptions.values():
                self._unroute(subscription)
                if subscription.replaying is not None:
                    subscription.replaying.close()
                    subscription.replaying = None
                # Else it is sent what waits for it, and that, too: see `_empty_outbox`.
                if subscription.limiter is not None and (self.ending is None or self.ending.discard):
                    subscription.limiter.close()
                    subscription.limiter = None

    # ---------------------------------------------------------------- ending

    def _fault(self) -> Fault | None:
        """The close frame that trio-websocket owes the client when it cuts the connection: for what it found wrong."""
        reason = self._connection.closed if self._connection is not None else None
        if reason is None or reason.code in (1005, 1006):
            return None
        return Fault(reason.code, reason.reason or "")

    def _flush(self) -> None:
        self.hub.fanout.flush(self.outbox)

    def cut(self) -> None:
        """End without a word: the handshake is not over yet."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def end(self, ending: Ending) -> None:
        """Have the connection closed. The first reason counts; nothing it sends is listened to any more."""
        if self.ending is not None:
            return
        self.ending = ending
        self._ingress.resume()
        self._unroute_all()
        if self._serving is not None:
            self._serving.cancel()

    async def _part(self, connection: trio_websocket.WebSocketConnection, ending: Ending) -> None:
        """Say goodbye, as far as the socket takes it, and close."""
        if ending is disconnects.GONE:
            return
        self.hub.counters.count_close(ending.code)
        facts = {"code": ending.code, "reason": ending.reason, **ending.facts}
        self.hub.repeats.say(self, "info", "closing", ending.code, **facts)
        try:
            await self._empty_outbox(ending)
            with trio.move_on_after(self.config.linger_s):
                if ending.farewell and not self.stream.close_sent:
                    await self.stream.send_all(frame_header(len(ending.farewell)) + ending.farewell)
                await self.stream.send_close(Fault(ending.code, ending.reason))
                await self._read(connection)  # nothing is listened to any more, until the client has answered
                await self.stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _empty_outbox(self, ending: Ending) -> None:
        """Let what waits go out first, or throw it away."""
        if not ending.discard:
            await self._let_held_go()
            self.hub.fanout.flush(self.outbox)
            if not self.stream.clear:
                self._start_writer()
            if self.writing is not None:
                with trio.move_on_after(self.config.drain_timeout_s):
                    await self.writing.wait()
        if self._writer is not None and self.writing is not None:
            # Not before it has stopped may what it writes be changed: it could be about to write it.
            self._writer.cancel()
            await self.writing.wait()
        await self.outbox.throw_away()
        self.outbox.discard()

    async def _let_held_go(self) -> None:
        turn = Turn()
        for limiter in [each.limiter for each in self.outbox.subscriptions.values()]:
            while limiter is not None and limiter.let_go(trio.current_time()):
                await turn.pause()

    # ------------------------------------------- asked by sweeps (see Owner)

    def need_writer(self) -> None:
        """See `Owner`."""
        if self.ending is None:
            self._start_writer()

    def _start_writer(self) -> None:
        if self.writing is None and self._nursery is not None:
            self.writing = trio.Event()
            self.hub.pressure.add(self)
            self._nursery.start_soon(self._write)

    def need_clearing(self) -> None:
        """See `Owner`. Where nobody starts tasks any more, `throw_away` and `close` do it."""
        if not self._clearing and self._nursery is not None:
            self._clearing = True
            self._nursery.start_soon(self._clear)

    async def _clear(self) -> None:
        try:
            await self.outbox.clear()
        finally:
            self._clearing = False

    def too_slow(self, verdict: SlowConsumer) -> None:
        """See `Owner`."""
        if self.ending is not None or self._judged:
            return
        subscription = verdict.subscription
        if subscription is not None and subscription.on_slow == "unsubscribe":
            self._drop(subscription, verdict)
            return
        self._judged = True  # it may itself be subscribed to what is published about it now
        self.hub.counters.slow_consumers += 1
        self.hub.episodes.disconnected(self, verdict)
        self.end(disconnects.slow_consumer(verdict))

    def _drop(self, subscription: Subscription, verdict: SlowConsumer) -> None:
        """Unsubscribe it, and say so."""
        self._unroute(subscription)
        self._count_gone(subscription)
        self.hub.episodes.unsubscribed(self, verdict)
        self.answer(encode(Error(0, "slow_consumer", disconnects.why_slow(verdict), verdict.detail())))

    def lagging(self, subscription: Subscription) -> None:
        """See `Owner`."""
        self.hub.episodes.began(self, subscription)

    def caught_up(self, subscription: Subscription) -> None:
        """See `Owner`."""
        if subscription.warned:
            self.hub.episodes.ended(self, subscription)
        self.hub.fanout.note_caught_up()

    def gone(self) -> None:
        """See `Owner`."""
        self.end(disconnects.GONE)

    async def _write(self) -> None:
        assert self.writing is not None
        if not self.stream.direct:
            self.look_anew()
        try:
            with trio.CancelScope() as self._writer:
                if verdict := await self.outbox.write_out():
                    self.too_slow(verdict)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.gone()
        finally:
            self.writing.set()
            self._writer = self.writing = None
            self.hub.pressure.discard(self)

    # ------------------------------------------------- what requests act with

    def answer(self, envelopes: bytes) -> None:
        """Send answers to this client: whole envelopes, at most `MAX_BATCH` bytes."""
        self.hub.fanout.answer(self.outbox, envelopes)

    def reject(self, error: Error) -> None:
        """Answer with ERROR, and count it."""
        self.hub.counters.rejected += 1
        self.hub.repeats.refused(self, error.code, error.id or None)
        self.answer(encode(error))

    def welcome(self) -> None:
        """Send WELCOME, once."""
        if self.welcomed:
            return
        if not self.hub.welcome(self):
            return
        self.welcomed = True
        self.stream.allow(self._max_message)
        greeting: dict[str, Any] = {
            "session": self.id,
            "server": self.config.server,
            "server_version": __version__,
            "version": 1,
            "max_message": self.config.max_message_bytes,
            "max_batch": MAX_BATCH,
            "max_envelopes": self.hub.config.max_envelopes,
            "ping_interval": self.config.ping_interval_s,
            "inbox": self.inbox,
        }
        if self.identity is not None:
            greeting |= self.identity.as_map()
        self.answer(encode(Welcome(greeting)))

    def publish(
        self, topic: Topic, elements: int, tail: bytes, key: str | None = None, retain: bool | None = None
    ) -> int:
        """Publish what came over the slow road; see `Fanout.publish`."""
        return publish_one(self.hub, topic, elements, tail, key, retain, self.outbox)

    def join(
        self, route: Route, given: Grant, wish: Wish | None = None, *, echo: bool = True, acknowledges: bool = False
    ) -> None:
        """From now on this connection gets what is published on the route; before that, what it wishes for.

        Before calling this, and `replay` and `change`, see to it that the session has not ended.
        """
        assert self.ending is None, "nobody would ever take it off the route"
        subscription = Subscription(
            route, given.queue, given.on_slow, given.max_rate, grace_s=given.queue_grace, echo=echo
        )
        self.outbox.subscriptions[route.number] = subscription
        if wish is not None:
            self.replay(subscription, wish)
        self._set_rate(subscription)
        self._set_conflating()
        if isinstance(route, GroupRoute):
            route.settle(subscription, acknowledges, trio.current_time())
        route.add(self.outbox, subscription)
        self.hub.heartbeats.set(subscription, self.outbox, given.heartbeat, trio.current_time())
        self.hub.presence.watch(subscription, self.outbox if given.presence else None)
        self.hub.presence.join(self, subscription)
        self.hub.subscriptions += 1
        if tells_of_the_broker(route.pattern):
            for tell in self.hub.on_asked:
                tell(route.pattern)
            self.hub.demand.asked(route.pattern)
        if self.registry.subscribers(route.pattern, 2) == 1:
            self.hub.demand.changed(route.pattern, True)

    def replay(self, subscription: Subscription, wish: Wish) -> None:
        """Begin with what is remembered. Call `Route.add` afterwards."""

        def live() -> None:
            if self.ending is not None:
                return
            subscription.replaying = None
            self._set_rate(subscription)
            subscription.route.add(self.outbox, subscription)

        assert self._nursery is not None
        hub = self.hub
        replaying = Replaying(wish, subscription, self.outbox, hub.fanout, hub.store, hub.replays, live)
        subscription.replaying = replaying
        self._nursery.start_soon(self._replay, replaying)

    async def _replay(self, replaying: Replaying) -> None:
        try:
            await replaying.run()
        except Exception:
            self.hub.repeats.say(self, "error", "defect: a subscription could not be begun", exc_info=True)
            self.end(disconnects.internal())

    def change(self, subscription: Subscription, given: Grant, *, acknowledges: bool = False) -> None:
        """Other options from now on; what is queued stays. Before calling this, flush what was gathered."""
        assert self.ending is None, "nobody would ever take it off the route"
        if subscription.on_slow != given.on_slow:
            self.outbox.forget_keys(subscription)  # what waits is in nobody's way, and stays as it is
        subscription.queue, subscription.on_slow, subscription.max_rate = given.queue, given.on_slow, given.max_rate
        subscription.grace_s = given.queue_grace
        self.outbox.note_change(subscription)
        self._set_rate(subscription)
        self._set_conflating()
        if isinstance(subscription.route, GroupRoute):
            subscription.route.settle(subscription, acknowledges, trio.current_time())
        subscription.route.add(self.outbox, subscription)
        self.hub.heartbeats.set(subscription, self.outbox, given.heartbeat, trio.current_time())
        self.hub.presence.watch(subscription, self.outbox if given.presence else None)
        if tells_of_the_broker(subscription.route.pattern):
            self.hub.demand.asked(subscription.route.pattern)

    def _set_rate(self, subscription: Subscription) -> None:
        rate, limiter = subscription.max_rate, subscription.limiter
        if subscription.replaying is not None:
            return  # when it is live
        if rate is None:
            if limiter is not None:
                limiter.open(trio.current_time(), partial(self._opened, subscription))
        elif limiter is not None:
            limiter.change(rate, trio.current_time())
        else:
            subscription.limiter = Limiter(subscription, self.outbox, self.hub.fanout, self.hub.watchdog)

    def _opened(self, subscription: Subscription) -> None:
        """Nothing of it is held any more, and there is no limit: from now on it gets what is published as it comes."""
        assert subscription.limiter is not None
        subscription.limiter.close()
        subscription.limiter = None
        if self.outbox in subscription.route.outboxes:
            subscription.route.add(self.outbox, subscription)

    def _set_conflating(self) -> None:
        outbox = self.outbox
        conflating = any(each.on_slow == "conflate" for each in outbox.subscriptions.values())
        if conflating and not outbox.conflating:
            self.stream.buffer_little(self.config.conflating_buffer_bytes)
        outbox.conflating = conflating

    def part(self, subscription: Subscription) -> None:
        """The contrary of `join`; nothing of the route that waits is sent any more."""
        self.hub.fanout.flush(self.outbox)
        if self.outbox.subscriptions.get(subscription.route.number) is not subscription:
            return  # it was too slow for that
        self._unroute(subscription)
        self.outbox.forget(subscription)
        self._count_gone(subscription)
        self._set_conflating()

    def totals(self) -> tuple[int, int]:
        """Messages lost and replaced, of all subscriptions that it has or had."""
        subscriptions = self.outbox.subscriptions.values()
        lost = self.gone_lost + sum([each.lost for each in subscriptions])
        return lost, self.gone_replaced + sum([each.replaced for each in subscriptions])

    def _count_gone(self, subscription: Subscription) -> None:
        self.gone_lost += subscription.lost
        self.gone_replaced += subscription.replaced

    def _unroute(self, subscription: Subscription) -> None:
        self.hub.heartbeats.stop(subscription)
        self.hub.presence.part(subscription, sent_away=self.hub.parting)
        if self.outbox in subscription.route.outboxes:
            if isinstance(subscription.route, GroupRoute):
                now, fanout = trio.current_time(), self.hub.fanout
                subscription.route.part(self.outbox, now, fanout, kindly=self.hub.parting)
            else:
                subscription.route.remove(self.outbox)
            self.outbox.clear_lagging(subscription)
            self.registry.release(subscription.route)
            if not self.registry.subscribers(subscription.route.pattern, 1):
                self.hub.demand.changed(subscription.route.pattern, False)
            self.hub.subscriptions -= 1
            self.hub.fanout.note_caught_up()

    # ----------------------------------------------------------------- clocks

    def _start_clocks(self) -> None:
        now = trio.current_time()
        interval = self.config.ping_interval_s
        # The first at a random point: ten thousand clients that came together must not be pinged together for ever.
        self._ping_due = now + interval * random.random() if interval is not None else float("inf")
        self._welcome_due = now + self.config.hello_timeout_s
        self._active = 0, now
        equip(self)
        self._watch = self.hub.watchdog.watch(self, min(self._ping_due, self._next_check(now)))

    def look_anew(self) -> None:
        """Something may be due sooner than it was."""
        if self._watch is not None:
            self.hub.watchdog.forget(self._watch)
            due = min(self._ping_due, self._next_check(trio.current_time()))
            self._watch = self.hub.watchdog.watch(self, due)

    def _next_check(self, now: float) -> float:
        since = self.stream.unfinished_since()
        message = (now if since is None else since) + self.config.message_timeout_s
        idle = self.hub.config.idle_timeout_s
        due = min(message, self.expires, math.inf if idle is None else self._active[1] + idle)
        if self._looks_who_lags:
            due = min(due, max(self.outbox.next_look(), now + LAG_LOOK_S))
        return due if self.welcomed else min(due, self._welcome_due)

    @property
    def _looks_who_lags(self) -> bool:
        """Whether the writer cannot, since a write that is cancelled would break the stream."""
        return self.writing is not None and not self.stream.direct

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        if self.ending is not None or self._nursery is None:
            return None
        if not self.welcomed and now >= self._welcome_due:
            self.end(disconnects.no_hello(self.config.hello_timeout_s))
            return None
        if now >= self.expires:
            note_expired(self)
            return None
        since = self.stream.unfinished_since()
        if since is not None and now >= since + self.config.message_timeout_s:
            self.end(disconnects.unfinished(self.config.message_timeout_s))
            return None
        if (idle := self.hub.config.idle_timeout_s) is not None and self._idle_s(now) >= idle:
            self.hub.limits.refuse("idle_timeout", session=self.id)
            self.end(disconnects.silent(idle))
            return None
        if self._looks_who_lags and now >= self.outbox.next_look():
            self.outbox.look_who_lags()
        if now >= self._ping_due:
            self._keep_alive(now)
        return None if self.ending is not None else min(self._ping_due, self._next_check(now))

    def _idle_s(self, now: float) -> float:
        """How long it has been subscribed to nothing and said nothing, as far as anybody has looked."""
        messages = self.stream.messages_received
        if self.outbox.subscriptions or messages != self._active[0]:
            self._active = messages, now
        return now - self._active[1]

    def _keep_alive(self, now: float) -> None:
        """Ping a silent client; end the connection of one that stays silent.

        Life is progress, counted: bytes received, bytes that a socket took which had refused more, and bytes that the
        client's kernel acknowledged, but for those of our pings. So a client that works through a backlog lives,
        although it has not come to the ping yet, and so does one that stays as far behind as it was. Where the kernel
        does not count (not Linux, a Unix socket), a backlog that gets shorter is what can be seen of that.
        """
        interval = self.config.ping_interval_s
        assert interval is not None
        stream = self.stream
        acknowledged, in_flight = stream.acknowledged(), stream.in_flight()
        taken = stream.progress + (acknowledged or 0) - _PING_ACKNOWLEDGED * self._pings
        shorter = acknowledged is None and in_flight < self._unacked
        alive = stream.bytes_received > self._heard or taken > self._taken or shorter or self._ingress.holding
        self._heard, self._taken, self._unacked = stream.bytes_received, max(taken, self._taken), in_flight
        if alive:
            self._pinged = False
            self._ping_due = now + interval
            if self._ingress.holding:
                self._ping()  # it is not read from, and should know that we live
        elif self._pinged:
            self.end(disconnects.idle(self.config.ping_timeout_s))
        else:
            self._ping()
            self._pinged = True
            self._ping_due = now + self.config.ping_timeout_s

    def _ping(self) -> None:
        if not self.stream.clear:
            return  # the socket is full: whether it moves is the sign of life that counts
        self._pings += 1
        try:
            self.stream.write_nowait(_PING)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.gone()
            return
        if not self.stream.clear:
            self.need_writer()
