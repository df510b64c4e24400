"""Publishing: what goes over the wire, together, in order, within bounds."""

import itertools

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import BufferFull, Client, LocalProtocolError, Pipeline, PublishResult, RequestFailed, connect
from fanwire.client.config import Options
from fanwire.client.exchange.outgoing import Outgoing
from fanwire.client.publishing.encoder import KEPT_TOPICS, Publisher
from fanwire.protocol import Encoding, Error, Ok, Ping, Publish, PublishOptions, Welcome, encode, pack
from tests.unit.client.scripted_peer import WELCOME, PeerConnection, ScriptedPeer, connected

SIZES = (0, 1, 31, 32, 253, 254, 255, 256, 257, 65533, 65536, 70000)


def _encoded(topic: str, data: object, **how: object) -> bytes:
    outgoing = Outgoing(Options())
    Publisher(outgoing).publish_nowait(topic, data, bool(how.get("raw")), how.get("headers"), how.get("key"))  # type: ignore[arg-type]
    return outgoing._open[0]


@pytest.mark.parametrize("size", SIZES)
def test_raw_bytes(size: int) -> None:
    """The quick encoding is the canonical one, for every width of length."""
    assert _encoded("a.b", b"x" * size, raw=True) == encode(Publish(0, "a.b", b"x" * size))


@pytest.mark.parametrize("size", SIZES)
def test_packed_data(size: int) -> None:
    """Data is packed, and the encoding says so."""
    expected = encode(Publish(0, "a.b", pack("x" * size), Encoding.MSGPACK))

    assert _encoded("a.b", "x" * size) == expected


@pytest.mark.parametrize("data", [None, True, -1, 2**64 - 1, 1.5, "é", [1, (2,)], {"a": {1: b"x"}}])
def test_any_data(data: object) -> None:
    """Whatever msgpack can say."""
    assert _encoded("t", data) == encode(Publish(0, "t", pack(data), Encoding.MSGPACK))


def test_raw_text() -> None:
    """A str that is sent raw is UTF-8 text, and says so."""
    assert _encoded("t", "é", raw=True) == encode(Publish(0, "t", "é".encode(), Encoding.TEXT))


@pytest.mark.parametrize("raw", [True, False])
def test_headers(raw: bool) -> None:
    """Headers stand in the options."""
    payload, encoding = (b"x", Encoding.RAW) if raw else (pack(b"x"), Encoding.MSGPACK)

    expected = encode(Publish(0, "t", payload, encoding, PublishOptions(headers={"a": "b"})))

    assert _encoded("t", b"x", raw=raw, headers={"a": "b"}) == expected


@pytest.mark.parametrize("raw", [True, False])
def test_a_key(raw: bool) -> None:
    """The conflation key stands in the options, with headers or without."""
    payload, encoding = (b"x", Encoding.RAW) if raw else (pack(b"x"), Encoding.MSGPACK)

    expected = encode(Publish(0, "t", payload, encoding, PublishOptions(key="k")))

    assert _encoded("t", b"x", raw=raw, key="k") == expected
    both = PublishOptions(headers={"a": "b"}, key="k")
    assert _encoded("t", b"x", raw=raw, headers={"a": "b"}, key="k") == encode(Publish(0, "t", payload, encoding, both))


@pytest.mark.parametrize(
    ("topic", "data", "raw", "code"),
    [("a..b", 1, False, "bad_topic"), ("a.*", 1, False, "bad_topic"), ("a", 1, True, "bad_option")],
)
def test_a_callers_mistakes(topic: str, data: object, raw: bool, code: str) -> None:
    """They are told at once, and nothing is sent."""
    with pytest.raises(LocalProtocolError) as caught:
        _encoded(topic, data, raw=raw)

    assert caught.value.code == code


def test_data_without_a_form_in_msgpack() -> None:
    """The error names the type, and the next publish is whole."""
    outgoing = Outgoing(Options())
    publisher = Publisher(outgoing)
    with pytest.raises(LocalProtocolError, match="object"):
        publisher.publish_nowait("t", [1, 2, object()], False, None)

    publisher.publish_nowait("t", 1, False, None)

    assert outgoing._open == [encode(Publish(0, "t", b"\x01", Encoding.MSGPACK))]


def test_topics_kept_are_bounded() -> None:
    """Any number of topics can be published to; only so many are remembered."""
    publisher = Publisher(Outgoing(Options()))
    for number in range(KEPT_TOPICS + 10):
        publisher.publish_nowait(f"t.{number}", 1, False, None)

    assert len(publisher._topics) == KEPT_TOPICS


async def test_what_is_published_together_travels_together(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A hundred publishes without an await between them are one WebSocket message, in order."""
    async with connected(peer) as (client, end):
        before = end.messages
        for number in range(100):
            client.publish_nowait("a", number)

        got = [(await end.expect(Publish)).payload[0] for _ in range(100)]

        assert got == list(range(100))
        assert end.messages == before + 1


async def test_a_websocket_message_is_never_too_large_for_the_broker(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Batches keep to the broker's max_message, and a single publish over it is the caller's mistake."""
    small = Welcome({**WELCOME.greeting, "max_message": 1000})

    async def accept() -> None:
        ends.append(await peer.accept(small))

    ends: list[PeerConnection] = []
    peer.nursery.start_soon(accept)
    async with connect("ws://peer/", open_stream=peer.open_stream) as client:
        for _ in range(10):
            client.publish_nowait("a", b"x" * 300, raw=True)
        with pytest.raises(LocalProtocolError, match="1000 at most"):
            client.publish_nowait("a", b"x" * 1000, raw=True)
        for _ in range(10):
            await ends[0].expect(Publish)

        assert ends[0].messages == 1 + 4  # HELLO, then three a message


async def test_flush_waits_for_the_kernel(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """`flush` returns only when the stream has taken everything; the bound of the buffer is told with its remedy."""
    async with connected(peer, outgoing_bytes=3 << 20, close_timeout_s=1.0) as (client, end):
        end.freeze()  # the stream between takes 1 MiB
        await wait_all_tasks_blocked()
        for _ in range(30):
            client.publish_nowait("a", b"x" * 100_000, raw=True)

        with trio.move_on_after(5) as scope:
            await client.flush()

        assert scope.cancelled_caught
        with pytest.raises(BufferFull, match=r"await client\.flush"):
            _publish_forever(client)


def _publish_forever(client: Client) -> None:
    while True:
        client.publish_nowait("a", b"x" * 100_000, raw=True)


async def test_acknowledged(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The broker's answer is the result."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_answer, end, Ok(1, {"offset": 3, "subscribers": 2, "lagging": 1}))

        assert await client.publish("a", 1) == PublishResult(offset=3, subscribers=2, lagging=1)


async def test_refused(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """An ERROR is raised, with its code; the connection lives."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_answer, end, Error(1, "forbidden", "not you", {"a": 1}))

        with pytest.raises(RequestFailed, match="not you") as caught:
            await client.publish("a", 1)

        assert (caught.value.code, caught.value.detail, client.state) == ("forbidden", {"a": 1}, "connected")


async def _answer(end: PeerConnection, answer: Ok | Error) -> None:
    publish = await end.expect(Publish)
    assert publish.id == answer.id
    await end.send(answer)


async def test_a_cancelled_publish_leaves_nothing(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Its answer, when it comes, harms nobody."""
    async with connected(peer) as (client, end):
        with trio.move_on_after(1):
            await client.publish("a", 1)
        publish = await end.expect(Publish)
        await end.send(Ok(publish.id, {}))
        await wait_all_tasks_blocked()

        assert len(client._requests) == 0
        assert client.state == "connected"


async def _answer_all(end: PeerConnection, bad: set[int]) -> None:
    while True:
        publish = await end.receive()
        if isinstance(publish, Publish):
            number = publish.payload[0]
            await end.send(Error(publish.id, "forbidden", f"not {number}") if number in bad else Ok(publish.id, {}))


async def test_pipeline(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Leaving the block waits for every answer."""
    async with connected(peer) as (client, end), trio.open_nursery() as nursery:
        nursery.start_soon(_answer_all, end, set())
        async with client.pipeline(window=8) as pipeline:
            for number in range(100):
                await pipeline.publish("a", number)

        assert (pipeline.acknowledged, pipeline.failures) == (100, 0)
        nursery.cancel_scope.cancel()


async def test_a_pipelines_newest_answer(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It says how many subscribers lag, so that a publisher can slow itself; before the first answer there is none."""
    async with connected(peer) as (client, end), client.pipeline() as pipeline:
        assert pipeline.newest is None
        for lagging in (1, 0):
            await pipeline.publish("a", 1)
            publish = await end.expect(Publish)
            await end.send(Ok(publish.id, {"offset": 0, "subscribers": 2, "lagging": lagging}))
            await wait_all_tasks_blocked()
            assert pipeline.newest == PublishResult(offset=0, subscribers=2, lagging=lagging)


async def test_a_pipelines_window(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """No more than the window is ever unanswered."""
    async with connected(peer) as (client, end):
        with trio.move_on_after(1):
            await _publish_ten(client.pipeline(window=5))
        await client.flush()

        assert [(await end.expect(Publish)).payload[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        with trio.move_on_after(1) as nothing_more:
            await end.receive()
        assert nothing_more.cancelled_caught
        assert len(client._requests) == 0


async def _publish_ten(pipeline: Pipeline) -> None:
    async with pipeline:
        for number in range(10):
            await pipeline.publish("a", number)


async def test_a_pipelines_failures(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """What was refused comes out at the end of the block, as a group."""
    async with connected(peer) as (client, end), trio.open_nursery() as nursery:
        nursery.start_soon(_answer_all, end, {3, 5})

        with pytest.raises(ExceptionGroup, match="2 of 10 publishes failed") as caught:
            await _publish_ten(client.pipeline())

        assert [str(error) for error in caught.value.exceptions] == ["not 3 (forbidden)", "not 5 (forbidden)"]
        nursery.cancel_scope.cancel()


async def test_a_pipeline_without_end_hears_of_failures(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The next publish raises what has failed so far."""
    async with connected(peer) as (client, end), trio.open_nursery() as nursery:
        nursery.start_soon(_answer_all, end, {7})

        with pytest.raises(ExceptionGroup, match=r"1 of [0-9]+ publishes failed"):
            await _publish_without_end(client.pipeline(window=4))
        nursery.cancel_scope.cancel()


async def _publish_without_end(pipeline: Pipeline) -> None:
    async with pipeline:
        for number in itertools.count():
            await pipeline.publish("a", number % 100)


async def test_ping(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The time until the answer."""
    async with connected(peer) as (client, end):

        async def answer() -> None:
            ping = await end.expect(Ping)
            await trio.sleep(0.25)
            await end.send(Ok(ping.id, {}))

        peer.nursery.start_soon(answer)

        assert await client.ping() == pytest.approx(0.25)
