"""What a connection held is free when it has ended, without the garbage collector, which comes by rarely."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameProtocol

from fanwire.broker import Broker, Config, TopicRule
from fanwire.broker.delivery.outbox import Outbox
from fanwire.broker.sessions.session import Session
from fanwire.broker.settings.auth import Auth
from fanwire.broker.settings.roles import Role
from fanwire.protocol import (
    Backlog,
    ClientEnvelope,
    Hello,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
)
from fanwire.protocol.frames import FrameSplitter, Opcode, close_payload, masked_frame
from fanwire.transport import FrameStream
from tests.keys import known
from tests.peers.raw import Exit, converse, request

HELD = (Session, Outbox, FrameStream, FrameSplitter, FrameProtocol)
OURS = ("fanwire", "trio_websocket", "wsproto", "h11")
KEY = b"\1\2\3\4"
SUBSCRIBE = masked_frame(encode(Subscribe(1, "a.b")), KEY)

# What the broker remembers on purpose, within bounds: of those who were there, of topics, and of patterns.
REMEMBERED = {"ClosedConnection", "Topic", "Stored", "Keeping"}


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What was there before is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_collector(frozen: None) -> Iterator[None]:
    """From a clean start the collector does nothing."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> list[object]:
    """Everything of connections that exists."""
    return [each for each in gc.get_objects() if isinstance(each, HELD)]


def alive() -> Counter[str]:
    """All objects of our classes and of the libraries', and trio's tasks, by the name of their class."""
    names = [type(each).__name__ for each in gc.get_objects() if _is_ours(type(each))]
    return Counter(name for name in names if name not in REMEMBERED)


def _is_ours(kind: type) -> bool:
    module = kind.__dict__.get("__module__")
    return (isinstance(module, str) and module.partition(".")[0] in OURS) or kind.__name__ in ("Task", "Nursery")


@pytest.mark.parametrize("leave", [Exit.LISTEN, Exit.HANG_UP])
@pytest.mark.parametrize(
    "last",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(masked_frame(b"", KEY, opcode=Opcode.CLOSE), id="a close frame"),
        pytest.param(masked_frame(b"\xc1", KEY), id="no msgpack"),
        pytest.param(b"\xff\xff", id="no frame"),
        pytest.param(SUBSCRIBE[:-3], id="half a frame"),
    ],
)
async def test_no_object_of_an_ended_connection_is_left(leave: Exit, last: bytes, autojump_clock: MockClock) -> None:
    """However a client goes, refused or by itself, nothing waits for the collector or the watchdog."""
    before = len(held())

    async with Broker(Config(listen=False)).serving() as broker:
        await converse(await broker.open_stream(), [SUBSCRIBE, last], leave=leave)
        await wait_all_tasks_blocked()

        assert not broker.statistics().connections
        assert len(held()) == before


# ------------------------------------------------------------------ every kind, every end

PATTERN = "a.*"

KINDS: dict[str, list[Subscribe]] = {
    "nothing": [],
    "plain": [Subscribe(1, PATTERN)],
    "exact": [Subscribe(1, "a.b")],
    "unsubscribe": [Subscribe(1, PATTERN, SubscribeOptions(on_slow="unsubscribe", queue=2))],
    "drop_oldest": [Subscribe(1, PATTERN, SubscribeOptions(on_slow="drop_oldest", queue=2))],
    "drop_newest": [Subscribe(1, PATTERN, SubscribeOptions(on_slow="drop_newest", queue=2))],
    "conflate": [Subscribe(1, PATTERN, SubscribeOptions(on_slow="conflate"))],
    "group": [Subscribe(1, PATTERN, SubscribeOptions(group="g"))],
    "group, acknowledging": [Subscribe(1, PATTERN, SubscribeOptions(group="g"), acknowledges=True)],
    "group that drops": [Subscribe(1, PATTERN, SubscribeOptions(group="g", on_slow="drop_oldest", queue=2), True)],
    "snapshot": [Subscribe(1, PATTERN, SubscribeOptions(snapshot=True))],
    "replay": [Subscribe(1, PATTERN, SubscribeOptions.from_map({"replay": {"last": 5}}))],
    "max_rate": [Subscribe(1, PATTERN, SubscribeOptions(max_rate=1.0))],
    "max_rate of few": [Subscribe(1, PATTERN, SubscribeOptions(max_rate=1.0, queue=1))],
    "no echo": [Subscribe(1, PATTERN, SubscribeOptions(echo=False))],
    "heartbeat": [Subscribe(1, PATTERN, SubscribeOptions(heartbeat=0.5))],
    "presence": [Subscribe(1, PATTERN, SubscribeOptions(presence=True))],
    "watching": [Subscribe(1, "$presence.>")],
    "demand": [Subscribe(1, "$sys.demand")],
    "slow ones": [Subscribe(1, "$sys.slow")],
    "everything": [
        Subscribe(1, PATTERN, SubscribeOptions(snapshot=True, max_rate=1.0)),
        Subscribe(2, "a.b", SubscribeOptions(on_slow="drop_oldest", queue=2, echo=False)),
        Subscribe(3, "a.>", SubscribeOptions(heartbeat=0.5)),
        Subscribe(1, PATTERN, SubscribeOptions(max_rate=2.0)),
    ],
}

STREAMS = (
    "",
    "?snapshot=true",
    "?last=5",
    "?policy=conflate",
    "?policy=drop_oldest&queue=2",
    "?max_rate=1",
    "?heartbeat=0.5",
)

Way = Callable[[Broker, trio.abc.HalfCloseableStream], Awaitable[None]]


async def cut(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """The network is lost."""
    await trio.aclose_forcefully(stream)


async def close(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """A clean goodbye, after everything has been read; over HTTP an end of input."""
    await stream.send_all(masked_frame(close_payload(1000), KEY, opcode=Opcode.CLOSE))
    await stream.send_eof()
    await _read_to_the_end(stream)


async def kicked(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """By an operator."""
    for connection in broker.connections():
        broker.kick(connection.session)
    await _read_to_the_end(stream)


async def kicked_unread(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """The same, and the client never reads that."""
    for connection in broker.connections():
        broker.kick(connection.session)
    await trio.sleep(30)
    await trio.aclose_forcefully(stream)


async def slow(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """It takes nothing, until it is dropped."""
    publish(broker, 40, 20_000)
    await trio.sleep(60)
    publish(broker, 1, 10)
    await trio.sleep(60)
    await trio.aclose_forcefully(stream)


async def wrong(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """It sends what cannot be read."""
    await stream.send_all(masked_frame(b"\xc1", KEY))
    await _read_to_the_end(stream)


async def unsubscribed(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """It unsubscribes from everything first, whatever waits or is under way."""
    for session in broker._hub.sessions:
        wishes: list[ClientEnvelope] = [Unsubscribe(90, route) for route in session.outbox.subscriptions]
        await stream.send_all(masked_frame(b"".join([encode(each) for each in wishes]), KEY))
    await wait_all_tasks_blocked()
    await close(broker, stream)


WAYS: list[Way] = [cut, close, unsubscribed, kicked, kicked_unread, slow, wrong]


async def _read_to_the_end(stream: trio.abc.HalfCloseableStream) -> None:
    with trio.move_on_after(90):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)


def publish(broker: Broker, count: int, size: int) -> None:
    """On two topics, some with a key."""
    for number in range(count):
        broker.publish("a.b", bytes(size))
        broker.publish("a.c", bytes(size), key=f"{number % 3}")


def config(**settings: Any) -> Config:
    """Topics that remember, presence, and clients that are soon too slow."""
    rules = (
        TopicRule(pattern="a.c", history=10),
        TopicRule(pattern="a.>", retain=True, presence=True),
        TopicRule(pattern=">", presence=True),
    )
    return Config(listen=False, rules=rules, presence_grace_s=1.0, stall_timeout_s=20.0, **settings)


async def _life(broker: Broker, requests: list[Subscribe], way: Way, *, behind: bool) -> None:
    """One client: connected, subscribed, perhaps behind, publishing itself, and gone."""
    stream = await broker.open_stream()
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    own: list[ClientEnvelope] = [
        Publish(0, "a.b", b"own"),
        Publish(9, "a.c", b"own", options=PublishOptions(key="k")),
        Ping(10),
    ]
    envelopes: list[ClientEnvelope] = [Hello(8, name="n", client="same"), *requests, *own, Backlog(0, 1, 90, 100)]
    await stream.send_all(request() + masked_frame(b"".join([encode(each) for each in envelopes]), KEY))
    await wait_all_tasks_blocked()
    publish(broker, 3, 10)
    await wait_all_tasks_blocked()
    if behind:
        publish(broker, 12, 20_000)  # more than the stream takes; the rest waits
        await wait_all_tasks_blocked()
    await way(broker, stream)


async def _stream_life(broker: Broker, query: str, way: Way, *, behind: bool) -> None:
    """The same over HTTP."""
    stream = await broker.open_stream()
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await stream.send_all(f"GET /v1/topics/a.*/stream{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await wait_all_tasks_blocked()
    publish(broker, 12 if behind else 3, 20_000 if behind else 10)
    await wait_all_tasks_blocked()
    await way(broker, stream)


async def _left_by(life: Callable[[Broker], Awaitable[None]], **settings: Any) -> dict[str, int]:
    """What there is more of after a client has come and gone, by the name of its class."""
    async with Broker(config(**settings)).serving() as broker:
        await life(broker)  # what is made once for all
        await _quiet(broker)
        before = alive()
        await life(broker)
        await life(broker)
        await _quiet(broker)
        left = dict(alive() - before)
        statistics = broker.statistics()
        assert (statistics.connections, statistics.http_connections, statistics.opening) == (0, 0, 0)
        assert (statistics.subscriptions, statistics.routes, statistics.lagging) == (0, 0, 0)
        return left


async def _quiet(broker: Broker) -> None:
    """Graces and lingering are over, and what was gathered is swept."""
    await trio.sleep(200)
    publish(broker, 1, 1)
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("behind", [False, True], ids=["level", "behind"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_left_of_any_kind(kind: str, way: Way, behind: bool, autojump_clock: MockClock) -> None:
    """Of no subscription, in no state, whatever ends it: no session, queue, limiter, heartbeat or text."""
    assert await _left_by(lambda broker: _life(broker, KINDS[kind], way, behind=behind)) == {}


@pytest.mark.parametrize("behind", [False, True], ids=["level", "behind"])
@pytest.mark.parametrize("way", [way for way in WAYS if way is not unsubscribed], ids=lambda way: way.__name__)
@pytest.mark.parametrize("query", STREAMS)
async def test_nothing_is_left_of_a_stream(query: str, way: Way, behind: bool, autojump_clock: MockClock) -> None:
    """The same for those who read a topic over HTTP."""
    assert await _left_by(lambda broker: _stream_life(broker, query, way, behind=behind)) == {}


# ------------------------------------------------------------------ what the broker ends by itself

TOKEN = "fw_good"
WRONG_TOKEN = b"Authorization: Bearer fw_wrong"
EVERYTHING = b"".join([encode(each) for each in KINDS["everything"]])
PUBLISH = encode(Publish(0, "a.b", b""))
HALF = masked_frame(bytes(1000), KEY)[:500]


def expire(broker: Broker) -> None:
    """All tokens have expired."""
    for session in list(broker._hub.sessions):
        session.expires = trio.current_time()
        session.look_anew()


@attrs.frozen
class Ending:
    """Settings, what a client says, and what happens then; its session ends for that."""

    settings: dict[str, Any]
    says: list[bytes]
    then: Callable[[Broker], object] = lambda broker: None


def _hello(token: str | None = None) -> bytes:
    return masked_frame(encode(Hello(5, token=token, name="n" * 1000)) + EVERYTHING, KEY)


AUTH = {"auth": Auth(roles=[Role(name="all", publish=(">",), subscribe=(">",))], tokens=[known(TOKEN, "alice", "all")])}

ENDINGS = {
    "half a request": Ending({}, [request()[:-10]]),
    "nothing": Ending({}, []),
    "another protocol": Ending({}, [b"\x16\x03\x01" + bytes(100)]),
    "no HELLO": Ending({"require_hello": True}, [request(), masked_frame(EVERYTHING, KEY)]),
    "before HELLO too large": Ending({"require_hello": True}, [request(), masked_frame(bytes(70_000), KEY)[:100]]),
    "a wrong token": Ending(AUTH, [request(), _hello("fw_wrong")]),
    "a wrong token in the header": Ending(AUTH, [request(WRONG_TOKEN)]),
    "a token that expires": Ending(AUTH, [request(), _hello(TOKEN)], expire),
    "half a message": Ending({}, [request(), _hello(), HALF]),
    "half a fragmented message": Ending({}, [request(), _hello(), b"\x02\xfe\x01\x00" + KEY + bytes(256)]),
    "silent": Ending({"ping_interval_s": 5.0}, [request(), _hello()]),
    "of no use": Ending({"idle_timeout_s": 5.0, "ping_interval_s": None}, [request(), masked_frame(b"", KEY)]),
    "too many envelopes": Ending({"max_envelopes": 10}, [request(), _hello(), masked_frame(b"\x01" * 31, KEY)]),
    "too fast": Ending(
        {"publish_rate": 1}, [request(), _hello(), masked_frame(encode(Publish(0, "a.b", b"")) * 500, KEY)]
    ),
    "too many bytes": Ending(
        {"max_pending_bytes": 5_000}, [request(), _hello()], lambda broker: publish(broker, 40, 20_000)
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_nothing_is_left_of_what_the_broker_ends(name: str, autojump_clock: MockClock) -> None:
    """Whatever limit, clock or refusal it is."""
    ending = ENDINGS[name]

    async def life(broker: Broker) -> None:
        stream = await broker.open_stream()
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        for part in ending.says:
            await stream.send_all(part)
            await wait_all_tasks_blocked()
        ending.then(broker)
        await wait_all_tasks_blocked()
        await trio.sleep(100)
        assert not broker._handled, "the broker has ended it"
        await trio.aclose_forcefully(stream)

    assert await _left_by(life, **ending.settings) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_left_when_the_broker_ends(kind: str, autojump_clock: MockClock) -> None:
    """It tells all clients to go, and those who do not are cut off."""
    before = alive()
    async with Broker(config()).serving() as broker:
        for behind in (False, True):
            await _life(broker, KINDS[kind], _stay, behind=behind)
        await _stream_life(broker, "?snapshot=true", _stay, behind=True)
        assert broker.statistics().connections == 3
    left = alive() - before

    assert not {"Session", "Outbox", "Subscription", "Limiter", "FrameStream", "WebSocketConnection"} & set(left)


async def _stay(broker: Broker, stream: trio.abc.HalfCloseableStream) -> None:
    """It does not hang up; the broker is about to."""
