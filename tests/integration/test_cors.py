"""Pages of other sites: what a browser is told before their requests, and what they can read of answers and errors."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from fanwire.broker import Auth, Role
from tests.keys import known

from .http_client import Answer, HttpClient, http, serving
from .sse_client import streaming

PAGE = "https://app.example"
ORIGIN = f"Origin: {PAGE}"
TOKEN = "Authorization: Bearer fw_alice"
AUTH = Auth(
    roles=[Role(name="some", publish=("may.>",), subscribe=("may.>",))], tokens=[known("fw_alice", "alice", "some")]
)
LISTED: dict[str, Any] = {"auth": AUTH, "allowed_origins": [PAGE]}


def _readable(answer: Answer) -> bool:
    """Whether a browser lets the page read it."""
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    return answer.headers.get("access-control-allow-origin") == PAGE


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/healthz", (), 200),
        ("GET", "/v1/topics/may.a/last", (TOKEN,), 404),
        ("POST", "/v1/publish/may.a", (TOKEN,), 200),
        ("POST", "/v1/publish/not.a", (TOKEN,), 403),
        ("POST", "/v1/publish/may..a", (TOKEN,), 400),
        ("POST", "/v1/publish/may.a", (), 401),
        ("POST", "/v1/publish/may.a", ("Authorization: Bearer wrong",), 401),
        ("POST", "/v1/publish/may.a", (TOKEN, "Content-Type: text/html"), 415),
        ("POST", "/v1/publish/may.a", (TOKEN, "Transfer-Encoding: chunked"), 400),
        ("POST", "/v1/publish", (TOKEN, "Content-Type: application/json"), 400),
        ("GET", "/v1/stats", (TOKEN,), 403),
        ("GET", "/v1/topics/not.a/stream", (TOKEN,), 403),
        ("DELETE", "/healthz", (), 405),
        ("GET", "/nothing", (), 404),
        ("GET", "/", (), 426),
    ],
)
async def test_a_listed_page_can_read_every_answer(
    method: str, target: str, headers: tuple[str, ...], status: int
) -> None:
    """Good ones and errors; also the time to wait, and the request's name."""
    async with serving(**LISTED) as broker:
        body = None if method == "GET" else b"x"
        answer = await (await http(broker)).ask(method, target, ORIGIN, *headers, body=body)

        assert answer.status == status
        assert _readable(answer)
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Request-Id", "Retry-After"} <= set(exposed)


async def test_limits_are_readable_too(autojump_clock: MockClock) -> None:
    """413, 429 with the time to wait, and 503 of a broker that is full."""
    async with serving(**LISTED, max_body_bytes=10, user_publish_rate=1) as broker:
        client = await http(broker)
        large = await client.ask("POST", "/v1/publish/may.a", ORIGIN, TOKEN, body=b"x" * 11)
        client = await http(broker)
        answers = [await client.ask("POST", "/v1/publish/may.a", ORIGIN, TOKEN, body=b"x") for _ in range(2)]
        assert [each.status for each in (large, *answers)] == [413, 200, 429]
        assert all(map(_readable, (large, *answers)))
        assert answers[1].headers["retry-after"] == "1"
    async with serving(**LISTED, max_connections=1) as broker:
        first = await http(broker)
        await first.get("/healthz")
        full = await (await http(broker)).get("/v1/topics/may.a/last", ORIGIN, TOKEN)
        assert (full.status, _readable(full)) == (503, True)


async def test_a_stream_is_readable() -> None:
    """From its head on."""
    async with serving(**LISTED) as broker:
        stream = await streaming(broker, "/v1/topics/may.a/stream", ORIGIN, TOKEN)

        assert stream.headers["access-control-allow-origin"] == PAGE
        assert stream.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("target", "method", "methods"),
    [
        ("/v1/publish/may.a", "POST", "POST"),
        ("/v1/publish", "POST", "POST"),
        ("/v1/topics/may.a/stream", "GET", "GET, HEAD"),
        ("/v1/connections/x", "DELETE", "DELETE"),
    ],
)
async def test_a_browser_asks_first(target: str, method: str, methods: str) -> None:
    """Without a token: it is told what is served there, which headers may come, and for how long that holds."""
    async with serving(**LISTED) as broker:
        client = await http(broker)
        answer = await _preflight(client, target, method)

        assert (answer.status, answer.body) == (204, b"")
        assert "content-length" not in answer.headers
        assert _readable(answer)
        assert answer.headers["access-control-allow-methods"] == methods
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert {"Authorization", "Content-Type", "Last-Event-ID", "X-Request-Id"} <= set(allowed)
        assert int(answer.headers["access-control-max-age"]) > 0
        assert (await client.get("/healthz")).status == 200, "the connection goes on"


async def _preflight(client: HttpClient, target: str, method: str, origin: str = PAGE) -> Answer:
    lines = f"OPTIONS {target} HTTP/1.1", "Host: x", f"Origin: {origin}", f"Access-Control-Request-Method: {method}"
    await client.send("\r\n".join([*lines, "", ""]).encode())
    return await client.answer(to_head=True)


async def test_a_page_that_is_not_listed_is_told_by_name_what_to_list() -> None:
    """The origin and the setting stand in the text; nothing can be read by the page itself."""
    async with serving(**LISTED) as broker:
        for target, method in (("/v1/publish/may.a", "POST"), ("/v1/topics/may.a/last", "GET")):
            answer = await (await http(broker)).ask(method, target, "Origin: https://evil.example", TOKEN)
            asked = await (await http(broker)).ask(
                "OPTIONS", target, "Origin: https://evil.example", f"Access-Control-Request-Method: {method}"
            )
            for each in (answer, asked):
                assert each.status == 403
                assert "https://evil.example" in each.json["error"]["message"]
                assert "allowed_origins" in each.json["error"]["message"]
                assert not _readable(each)


async def test_without_a_list_no_page_of_another_site_can_read_anything() -> None:
    """Nor is a browser's question answered with yes."""
    async with serving(auth=AUTH) as broker:
        answer = await (await http(broker)).get("/healthz", ORIGIN)
        asked = await _preflight(await http(broker), "/v1/publish/may.a", "POST")

        assert (answer.status, asked.status) == (200, 403)
        assert not any(name.startswith("access-control") for name in answer.headers | asked.headers)


async def test_an_asterisk_is_for_everybody_and_never_with_credentials() -> None:
    """The asterisk itself is sent: with it a browser sends no cookies."""
    async with serving(auth=AUTH, allowed_origins=["*"]) as broker:
        answer = await (await http(broker)).get("/v1/topics/may.a/last", "Origin: null", TOKEN)

        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
