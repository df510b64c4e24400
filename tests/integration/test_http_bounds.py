"""Hostile HTTP: each request is bounded in size and time, and read by nobody in two ways."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.broker.http import HttpService, payloads
from fanwire.broker.http.answers import Answer, Outlet, Stream
from fanwire.broker.http.conversation import MAX_CHUNKS
from fanwire.broker.http.endpoints import Endpoint
from fanwire.broker.http.long_json import AT_ONCE
from fanwire.broker.http.who import Who
from fanwire.transport import memory_stream_pair

from .http_client import HttpClient, http, serving
from .raw import REQUEST, RawClient, connected, subscribed

POST = b"POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


async def _refused(broker: Broker, data: bytes) -> tuple[int, str]:
    """What it is answered with; nothing may follow, and nothing may have been published."""
    client = await http(broker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, client, data)
        answer = await client.answer()
        assert await client.closed()
        nursery.cancel_scope.cancel()
    assert broker.statistics().published == 0
    return answer.status, answer.code


async def _send(client: HttpClient, data: bytes) -> None:
    try:
        await client.send(data)
    except trio.BrokenResourceError:
        pass  # it has heard enough


SMUGGLED = b"POST /v1/publish/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 0, 44\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: +1\r\n\r\nx",
        POST + b"Content-Length: -1\r\n\r\nx",
        POST + b"Content-Length: 0x1\r\n\r\nx",
        POST + b"Content-Length : 1\r\n\r\nx",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + CHUNKED + b"0\r\n\r\n" + SMUGGLED,
        POST + CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
        POST + CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
        POST + CHUNKED + b"1\nx\n0\n\n",
        POST + CHUNKED + b"1\r\nxX0\r\n\r\n" + SMUGGLED,
        POST + CHUNKED + b"ffffffffffffffffffffff\r\n",
        POST + b"X: a\nContent-Length: 1\r\n\r\nx",
        POST + b"X: a\r\n Content-Length: 1\r\n\r\nx",
        POST + b"X: a\rContent-Length: 1\r\n\r\nx",
        POST + b"X: a\0\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/publish/a HTTP/1.1\nHost: localhost\nContent-Length: 1\n\r\n\r\nx",
        b"POST /v1/publish/a\r\nX: HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/publish/a b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/publish/a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/publish/a HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/publish/a HTTP/2.0\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_requests_that_could_be_read_in_two_ways(data: bytes, autojump_clock: MockClock) -> None:
    """Refused, and the connection ends: what follows is nobody's request. (Or it never ends, and is not waited for.)"""
    async with serving() as broker:
        client = await http(broker)
        await client.send(data)
        received = bytearray()
        while part := await client.stream.receive_some(65536):
            received += part

        assert received.count(b"HTTP/1.1 ") == 1
        assert int(received.split(b" ")[1]) in (400, 408, 413, 501, 505)
        assert broker.statistics().published == 0


@pytest.mark.parametrize("name", [b"X-Filler: ", b"Cookie: ", b"Authorization: Bearer "])
async def test_heads_are_bounded(name: bytes, autojump_clock: MockClock) -> None:
    """At 16 KiB, the first one and each that follows."""
    async with serving() as broker:
        client = await http(broker)
        assert (await client.get("/healthz")).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, client, GET + name + b"x" * 20_000)
            answer = await client.answer()

            assert (answer.status, answer.code) == (431, "too_large")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 1025\r\n\r\n",
        POST + b"Content-Length: 999999999999999999\r\n\r\n",
        POST + b"Content-Length: 1025\r\nExpect: 100-continue\r\n\r\n",
        POST + CHUNKED + b"401\r\n" + b"x" * 1025,
        POST + CHUNKED + b"200\r\n" + b"x" * 512 + b"\r\n200\r\n" + b"x" * 512 + b"\r\n1\r\nx",
    ],
    ids=lambda data: str(data[49:80]),
)
async def test_bodies_are_bounded(data: bytes, autojump_clock: MockClock) -> None:
    """By what the head says, or as soon as there is more of it."""
    async with serving(max_body_bytes=1024) as broker:
        assert await _refused(broker, data) == (413, "too_large")


async def test_a_body_of_as_many_bytes_as_may_be() -> None:
    """In one piece, and in chunks; the connection goes on."""
    async with serving(max_body_bytes=1024) as broker:
        client = await http(broker)
        assert (await client.ask("POST", "/v1/publish/a", body=b"x" * 1024)).status == 200
        await client.send(POST + CHUNKED + b"400;ext=1\r\n" + b"x" * 1024 + b"\r\n0\r\nTrailer: 1\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.get("/healthz")).status == 200


async def test_chunks_are_bounded_in_number(autojump_clock: MockClock) -> None:
    """Each costs something, however short it is."""
    async with serving() as broker:
        assert await _refused(broker, POST + CHUNKED + b"1\r\nx\r\n" * (MAX_CHUNKS + 1)) == (413, "too_large")


async def test_a_message_is_bounded_as_by_websocket() -> None:
    """A subscriber takes no longer ones."""
    async with serving(max_message_bytes=10) as broker:
        answer = await (await http(broker)).ask("POST", "/v1/publish/a", body=b"x" * 11)

        assert (answer.status, answer.code) == (413, "too_large")


async def test_who_waits_for_leave_to_send_a_body_gets_it() -> None:
    """Expect: 100-continue, as curl says it."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(POST + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        while b"\r\n\r\n" not in client.received:
            await client._read()
        assert client.received.startswith(b"HTTP/1.1 100 ")
        client.received.clear()
        await client.send(b"x")

        assert (await client.answer()).status == 200


# ---------------------------------------------------------------------- time


async def test_slow_heads_bodies_and_readers(autojump_clock: MockClock) -> None:
    """A byte a second is no life: the whole has its time."""
    async with serving() as broker:
        for data, limit, status in ((GET, 5, 408), (POST + b"Content-Length: 1000\r\n\r\n", 30, 408)):
            client, began = await http(broker), trio.current_time()
            await client.get("/healthz")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drip, client, data)
                answer = await client.answer()

                assert (answer.status, answer.code) == (status, "timeout")
                assert trio.current_time() - began == pytest.approx(limit, abs=1.5)
                nursery.cancel_scope.cancel()


async def _drip(client: HttpClient, data: bytes) -> None:
    await client.send(data[:-2] if data is GET else data)
    while True:
        await trio.sleep(1)
        await client.send(b"x")


async def test_an_idle_connection_ends(autojump_clock: MockClock) -> None:
    """After its time; sooner when it never said anything."""
    async with serving(http_idle_timeout_s=60) as broker:
        client, silent, began = await http(broker), await http(broker), trio.current_time()
        await client.get("/healthz")
        assert await silent.closed()
        assert trio.current_time() - began == pytest.approx(5)
        assert await client.closed()
        assert trio.current_time() - began == pytest.approx(60)


async def test_who_does_not_take_the_answer_is_cut_off(autojump_clock: MockClock) -> None:
    """What it was asked for does not wait for ever."""
    async with serving() as broker:
        broker.publish("a", b"x" * 500_000, retain=True)
        client, began = await http(broker), trio.current_time()
        await client.send(b"GET /v1/topics/a/last HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while broker.statistics().http_connections or trio.current_time() == began:  # noqa: ASYNC110 (a mock clock)
            await trio.sleep(1)

        assert trio.current_time() - began == pytest.approx(31, abs=2)


# -------------------------------------------------------------------- number


async def test_http_connections_count() -> None:
    """When there is no room, health and status are still told, one request a connection."""
    async with serving(max_connections=2) as broker:
        first, second = await connected(broker), await http(broker)
        assert (await second.get("/v1/topics/a/last")).code == "not_kept"
        health, reader = await http(broker), await http(broker)

        answer = await health.get("/healthz")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        refused = await reader.get("/v1/topics/a/last")
        assert (refused.status, refused.code) == (503, "too_many")
        await first.stream.aclose()


async def test_a_websocket_finds_no_room_among_http_connections() -> None:
    """They share it."""
    async with serving(max_connections=1) as broker:
        client = await http(broker)
        await client.get("/healthz")

        ended = await (await connected(broker, welcomed=False)).ended()

        assert ended.code == 4029


async def test_pipelined_requests_are_answered_one_by_one_while_others_get_their_turn() -> None:
    """A thousand in one packet."""
    async with serving() as broker:
        many, one = await http(broker), await http(broker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(many.send, (GET + b"\r\n") * 1000)
            assert (await one.get("/healthz")).status == 200
            for _ in range(1000):
                assert (await many.answer()).status == 200


async def test_a_defect_is_told_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """500, the code, and the log has the rest; only this connection ends."""

    async def handle(*_: object) -> Answer:
        raise RuntimeError("secret")

    broken = Endpoint(method="GET", path="/broken", who=Who.EVERYBODY, summary="", handle=handle, answers={})
    async with serving() as broker, _beside(broker, broken) as client:
        answer = await client.get("/broken")

        assert (answer.status, answer.code) == (500, "internal")
        assert b"secret" not in answer.body
        assert "secret" in caplog.text
        assert await client.closed()


async def test_a_handler_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    """503, so that whoever asked may ask elsewhere."""

    async def handle(*_: object) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    hangs = Endpoint(method="GET", path="/hangs", who=Who.EVERYBODY, summary="", handle=handle, answers={})
    async with serving() as broker, _beside(broker, hangs) as client:
        answer = await client.get("/hangs")

        assert (answer.status, answer.code) == (503, "unavailable")


# -------------------------------------------------------------------- streams


@asynccontextmanager
async def _beside(broker: Broker, *endpoints: Endpoint) -> AsyncIterator[HttpClient]:
    """A connection to endpoints of the test's own."""
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        service = broker._hub.http
        assert isinstance(service, HttpService)
        await service.serve(theirs, endpoints=endpoints)
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield HttpClient(ours)
        await ours.aclose()


def _streaming(ended: list[str], draining: list[str]) -> Endpoint:
    async def body(outlet: Outlet) -> None:
        try:
            await outlet.send(b"one\n")
            await outlet.draining.wait()
            draining.append("yes")
            await outlet.send(b"bye\n")
        finally:
            ended.append("yes")

    async def handle(*_: object) -> Stream:
        return Stream("text/event-stream", body)

    return Endpoint(method="GET", path="/stream", who=Who.EVERYBODY, summary="", handle=handle, answers={})


async def _until(client: HttpClient, text: bytes) -> None:
    while text not in client.received:
        await client._read()


async def test_a_stream_lasts_beyond_any_deadline_and_ends_with_its_client(autojump_clock: MockClock) -> None:
    """Nothing of it is left when the client hangs up."""
    ended: list[str] = []
    async with serving() as broker:
        async with _beside(broker, _streaming(ended, [])) as client:
            await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await _until(client, b"4\r\none\n\r\n")
            await trio.sleep(1000)
            assert not ended
        assert ended

        assert broker.statistics().http_connections == 0


async def test_a_stream_is_told_of_a_drain(autojump_clock: MockClock) -> None:
    """It may say something, and its last chunk comes."""
    ended: list[str] = []
    draining: list[str] = []
    async with serving() as broker, _beside(broker, _streaming(ended, draining)) as client:
        await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await _until(client, b"one\n")
        broker._hub.http.drain()
        await _until(client, b"bye\n\r\n0\r\n\r\n")

        assert ended == draining == ["yes"]


async def test_head_of_a_stream_has_no_body() -> None:
    """And the stream is not begun."""
    ended: list[str] = []
    async with serving() as broker, _beside(broker, _streaming(ended, [])) as client:
        await client.send(b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer(to_head=True)

        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert await client.closed()
        assert not ended


async def test_to_http_1_0_a_stream_ends_with_the_connection() -> None:
    """It knows no chunks."""
    async with serving() as broker, _beside(broker, _streaming([], [])) as client:
        await client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        await _until(client, b"\r\n\r\none\n")

        assert b"chunked" not in client.received


async def test_who_sends_on_behind_a_stream_is_not_listened_to(autojump_clock: MockClock) -> None:
    """Up to a bound; then it is cut off."""
    ended: list[str] = []
    async with serving() as broker, _beside(broker, _streaming(ended, [])) as client:
        await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await _until(client, b"one\n")
        await client.send(b"x" * 1000)
        await wait_all_tasks_blocked()
        assert not ended
        await client.send(b"x" * 20_000)
        await wait_all_tasks_blocked()

        assert ended


# ------------------------------------------------------------ what others send


async def test_empty_lines_before_a_request_are_passed_over(autojump_clock: MockClock) -> None:
    """RFC 9112 section 2.2; also those behind a body, on which no request follows: they are no request."""
    async with serving(http_idle_timeout_s=60.0) as broker:
        client = await http(broker)
        await client.send(b"\r\n\r\n" + GET + b"\r\n")
        assert (await client.answer()).status == 200
        await client.send(POST + b"Content-Length: 1\r\n\r\nx\r\n")
        assert (await client.answer()).status == 200
        await trio.sleep(50)
        await client.send(b"\r")
        await client.send(b"\n" + GET + b"\r\n")
        assert (await client.answer()).status == 200
        await trio.sleep(50)
        await client.send(b"\r\n")
        await trio.sleep(9)
        began = trio.current_time()
        assert await client.closed()
        assert trio.current_time() - began == pytest.approx(1.0)

        raw = RawClient(await broker.open_stream())
        await raw.open(request=b"\r\n" + REQUEST)


async def test_a_target_in_absolute_form_is_a_target(autojump_clock: MockClock) -> None:
    """As proxies send it (RFC 9112 section 3.2.2). Its host counts, and not what `Host` says."""
    async with serving() as broker:
        client = await http(broker)
        for target in ("http://localhost/healthz", "HTTP://127.0.0.1:80/healthz?x=1"):
            assert (await client.get(target)).status == 200
        assert (await client.get("http://localhost/v1/topics/a/last")).code == "not_kept"
        assert (await client.get("http://evil.example/v1/topics/a/last")).code == "forbidden"
        assert (await client.get("http://localhost")).status == 404
        for target in ("http:///healthz", "http://me@localhost/healthz"):
            assert (await (await http(broker)).get(target)).status == 400

        raw = RawClient(await broker.open_stream())
        await raw.open(request=REQUEST.replace(b"GET / ", b"GET http://test/ "))


async def test_health_takes_any_query(autojump_clock: MockClock) -> None:
    """Checks add something against caches. Other endpoints refuse what they do not know."""
    async with serving() as broker:
        client = await http(broker)
        for target in ("/healthz?x", "/readyz?t=1&t=2", "/healthz?", "/v1/openapi.json?x=1"):
            assert (await client.get(target)).status == 200
        assert (await client.get("/v1/topics/a/last?x")).code == "bad_option"


async def test_options_of_the_websocket_endpoint_say_that_the_broker_lives(autojump_clock: MockClock) -> None:
    """The usual check of a load balancer, as HTTP/1.0 and without a Host."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(b"OPTIONS / HTTP/1.0\r\n\r\n")
        answer = await client.answer(to_head=True)

        assert (answer.status, answer.headers["allow"]) == (204, "GET, OPTIONS")
        assert await client.closed()


async def test_lines_that_end_with_lf_alone(autojump_clock: MockClock) -> None:
    """As some health checks send them: one request without a body, and the connection ends with its answer."""
    async with serving() as broker:
        for head in (b"GET /healthz HTTP/1.0\n\n", b"GET /healthz HTTP/1.1\nHost: localhost\n\n" + GET + b"\r\n"):
            client = await http(broker)
            await client.send(head)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.closed()
        for lines in (b"Content-Length: 1\n\nx", b"Transfer-Encoding: chunked\n\n1\nx\n0\n\n"):
            assert await _refused(broker, POST.replace(b"\r\n", b"\n") + lines) == (400, "malformed")
        for head in (GET.replace(b"\r\n", b"\n") + b"X: a\n b: c\n\n", REQUEST.replace(b"\r\n", b"\n")):
            client = await http(broker)
            await client.send(head)
            assert (await client.answer()).status == 400


# ------------------------------------------------------------- batches in time


async def test_a_batch_that_waits_is_answered_for_each_message(autojump_clock: MockClock) -> None:
    """What is published by then is said to be: whoever sends the rest again doubles nothing."""
    rules = (TopicRule(pattern="slow", publisher_wait_s=100.0),)
    async with serving(rules=rules, http_request_timeout_s=10.0) as broker:
        reader = await subscribed(broker, "fast")
        lagging = await subscribed(broker, "slow", queue=4, on_slow="drop_oldest")
        while not broker.statistics().lagging:
            broker.publish("slow", b"x" * 30_000)
            await wait_all_tasks_blocked()
        topics = ("fast", "slow", "fast", "slow")
        items = json.dumps([{"topic": topic, "payload": topic} for topic in topics]).encode()
        began = trio.current_time()
        answer = await (await http(broker)).ask("POST", "/v1/publish", "Content-Type: application/json", body=items)

        assert answer.status == 207
        codes = [result.get("error", {}).get("code") for result in answer.json["results"]]
        assert codes == [None, "unavailable", "unavailable", "unavailable"]
        assert trio.current_time() - began < 10
        assert await reader.payloads(1) == [b'"fast"']
        assert lagging is not None


async def test_what_cannot_be_said_in_json_is_told_of_its_message(autojump_clock: MockClock) -> None:
    """A number beyond all floats, and nesting that the parser takes and the writer does not; others are published."""
    async with serving() as broker:
        odd = [b"1e999", b'{"a": -1e999}'] + [b"[" * depth + b"]" * depth for depth in range(900, 1000)]
        client = await http(broker)
        published = 0
        for payload in odd:
            body = b'[{"topic": "a", "payload": 1}, {"topic": "a", "payload": ' + payload + b"}]"
            answer = await client.ask("POST", "/v1/publish", "Content-Type: application/json", body=body)
            assert answer.status in (200, 207, 400), payload[:10]
            published += 0 if answer.status == 400 else answer.json["published"]
            if answer.status == 207:
                assert answer.json["results"][1]["error"]["code"] == "bad_option"
        assert published == broker.statistics().published


async def test_a_byte_order_mark_is_no_part_of_the_data(autojump_clock: MockClock) -> None:
    """In front of a batch, of lines, and of a payload that is JSON or text."""
    mark = b"\xef\xbb\xbf"
    async with serving() as broker:
        reader = await subscribed(broker, "a")
        client = await http(broker)
        for target, media, body in (
            ("/v1/publish", "application/json", b'[{"topic": "a", "payload": 1}]'),
            ("/v1/publish", "application/x-ndjson", b'{"topic": "a", "payload": 2}\r\n'),
            ("/v1/publish/a", "application/json", b"3"),
            ("/v1/publish/a", "text/plain", b"4"),
            ("/v1/publish/a", "application/octet-stream", b"5"),
        ):
            assert (await client.ask("POST", target, f"Content-Type: {media}", body=mark + body)).status == 200

        assert await reader.payloads(5) == [b"1", b"2", b"3", b"4", mark + b"5"]


def _batch(media: str, *payloads: bytes) -> bytes:
    messages = [b'{"topic": "a", "payload": ' + payload + b"}" for payload in payloads]
    return b"\n".join(messages) if media == "application/x-ndjson" else b"[" + b", ".join(messages) + b"]"


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
async def test_a_long_batch_is_parsed_in_pieces(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, media: str
) -> None:
    """None longer than what is parsed at once, but for its texts; and nothing is published unless all is JSON."""
    parsed = Mock(side_effect=payloads.parsed)
    monkeypatch.setattr("fanwire.broker.http.publish.parsed", parsed)
    text, numbers = b'"' + rb"x\"]" * 50_000 + b'"', b"[" + b"1," * (AT_ONCE // 2 - 1_000) + b"1]"
    async with serving() as broker:
        reader = await subscribed(broker, "a")
        client = await http(broker)

        async def ask(*values: bytes) -> Any:
            return await client.ask("POST", "/v1/publish", f"Content-Type: {media}", body=_batch(media, *values))

        answer = await ask(text, numbers, numbers)
        assert (answer.status, answer.json["published"]) == (200, 3)
        assert await reader.payloads(3) == [text, numbers, numbers]
        most = max(len(call.args[0]) for call in parsed.call_args_list)
        assert (parsed.call_count, most) == (3, len(_batch("application/x-ndjson", text)))

        long = b"[" + b"1," * (AT_ONCE // 2) + b"1]"
        answer = await ask(b"1", long)
        assert (answer.status, answer.code) == (413, "too_large")
        assert "message 2" in answer.json["error"]["message"]

        answer = await ask(text, b"1", b"x")
        assert (answer.status, answer.code) == (400, "malformed")
        assert "message 3" in answer.json["error"]["message"]

        alone = await client.ask("POST", "/v1/publish/a", "Content-Type: application/json", body=long)
        assert alone.status == 200
        assert await reader.payloads(1) == [long]


@pytest.mark.parametrize("behind", [b",{}", b"]", b"x", b""])
async def test_a_long_line_is_one_message(autojump_clock: MockClock, behind: bytes) -> None:
    """Whatever it would be within an array; the last one here is."""
    line = _batch("application/x-ndjson", b'"' + b"x" * 200_000 + b'"') + behind
    async with serving() as broker:
        answer = await (await http(broker)).ask("POST", "/v1/publish", "Content-Type: application/x-ndjson", body=line)
        assert answer.status == (400 if behind else 200)


async def test_bytes_that_are_refused_are_charged_too(autojump_clock: MockClock) -> None:
    """Up to a minute's worth of debt; a health check is never refused for it."""
    async with serving(publish_volume_bytes=1000) as broker:
        client = await http(broker)
        for _ in range(200):
            answer = await client.ask("POST", "/v1/publish/no..topic", body=b"x" * 2000)
            assert answer.status == 400
        refused = await client.ask("POST", "/v1/publish/a", body=b"x")
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert 50 <= int(refused.headers["retry-after"]) <= 70
        assert (await client.get("/healthz")).status == 200


async def test_other_rates_hold_for_connections_that_are_there(autojump_clock: MockClock) -> None:
    """From the next request on, as on a WebSocket."""
    async with serving() as broker:
        client = await http(broker)
        assert (await client.ask("POST", "/v1/publish/a", body=b"x")).status == 200
        await broker.reload(attrs.evolve(broker.config, publish_rate=1))

        statuses = [(await client.ask("POST", "/v1/publish/a", body=b"x")).status for _ in range(2)]
        assert statuses == [200, 429]
