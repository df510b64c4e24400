"""HTTP on the broker's port: what is asked for is answered, in order, and the connection lives as long as it should."""

import trio
import trio.testing

from fanwire.protocol import Message, Ok, Ping, Welcome, encode
from fanwire.protocol.frames import masked_frame
from fanwire.version import __version__

from .http_client import http, serving
from .raw import KEY, REQUEST, RawClient, subscribed


async def test_a_broker_tells_that_it_lives() -> None:
    """Without a token, in JSON, not to be stored."""
    async with serving() as broker:
        answer = await (await http(broker)).get("/healthz")

        assert (answer.status, answer.json) == (200, {"status": "ok", "version": __version__})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_many_requests_on_one_connection() -> None:
    """One after the other, or all at once; answers come in their order."""
    async with serving() as broker:
        client = await http(broker)
        assert (await client.get("/readyz")).json == {"status": "ready"}
        await client.send(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
        )

        health = await client.answer()
        assert health.status == 200
        assert (await client.answer()).code == "not_found"
        head = await client.answer(to_head=True)
        assert (head.status, head.headers["content-length"]) == (200, str(len(health.body)))
        assert (await client.answer()).json == {"status": "ready"}


async def test_http_1_0_is_answered_and_closed() -> None:
    """As simple health checks speak."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(b"GET /healthz HTTP/1.0\r\n\r\n")

        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.closed()


async def test_while_it_drains_it_is_not_ready(autojump_clock: object) -> None:
    """Who waits for nothing is closed at once; who has begun to ask is answered, and closed then."""
    async with serving() as broker:
        idle, asking = await http(broker), await http(broker)
        assert (await idle.get("/readyz")).status == (await asking.get("/readyz")).status == 200
        await asking.send(b"GET /readyz HTTP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            assert await idle.closed()
            await asking.send(b"Host: x\r\n\r\n")
            answer = await asking.answer()

            assert (answer.status, answer.json) == (503, {"status": "draining"})
            assert answer.headers["connection"] == "close"
            assert await asking.closed()


async def test_no_byte_of_a_handshake_is_lost() -> None:
    """Frames in the packet of the request, and the two cut anywhere."""
    data = REQUEST + masked_frame(encode(Ping(1)), KEY)
    async with serving() as broker:
        for cut in range(1, len(data) + 1):
            client = RawClient(await broker.open_stream())
            await client.stream.send_all(data[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.send_all(data[cut:])
            while (end := client.received.find(b"\r\n\r\n")) < 0:
                await client.read()
            del client.received[: end + 4]

            await client.expect(Welcome)
            assert (await client.expect(Ok)).id == 1, cut
            await client.stream.aclose()


async def test_no_byte_of_a_request_is_lost() -> None:
    """A body in the packet of the head, the next request behind it, and all cut anywhere."""
    request = b"POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"
    data = request + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving() as broker:
        subscriber = await subscribed(broker, "a")
        for cut in range(1, len(data) + 1):
            client = await http(broker)
            await client.send(data[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await client.send(data[cut:])

            assert (await client.answer()).status == (await client.answer()).status == 200
            assert (await subscriber.expect(Message)).payload == b"body", cut
            await client.stream.aclose()


async def test_during_the_delay_of_a_drain_it_serves_and_says_that_it_is_not_ready(autojump_clock: object) -> None:
    """So that a load balancer has time to notice; new connections come in, and publishing works."""
    async with serving(drain_delay_s=10) as broker, trio.open_nursery() as nursery:
        nursery.start_soon(broker.drain)
        await trio.sleep(1)
        client = await http(broker)

        assert (await client.get("/readyz")).status == 503
        assert (await client.ask("POST", "/v1/publish/a", body=b"x")).status == 200
        assert await client.closed()
        assert trio.current_time() > 9
