"""One HTTP request can be followed: by its name, in the answer and in the log."""

from __future__ import annotations

import logging

import pytest
from trio.testing import MockClock

from fanwire.broker import Auth, AuthToken, Role

from .http_client import http, serving


async def test_a_request_keeps_its_name_through_the_broker(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Taken if it is sane, else made; the same in the answer and in the lines about it."""
    caplog.set_level(logging.DEBUG, "fanwire.broker")
    async with serving() as broker:
        client = await http(broker)
        good = await client.get("/v1/nothing", "X-Request-Id: trace-4711")
        made = await client.get("/healthz")
        again = await client.get("/healthz", "X-Request-Id: a b\t<script>")

    assert good.headers["x-request-id"] == "trace-4711"
    names = [made.headers["x-request-id"], again.headers["x-request-id"]]
    assert len(set(names)) == 2
    assert all(len(name) == 16 for name in names)
    (told,) = [vars(record) for record in caplog.records if record.getMessage() == "request refused"]
    assert (told["request"], told["code"]) == ("trace-4711", "not_found")


async def test_a_bad_token_is_logged_with_the_name_of_its_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And without the token."""
    auth = Auth(
        tokens=(AuthToken(sha256="0" * 64, user="alice", roles=("all",)),), roles=(Role(name="all", subscribe=(">",)),)
    )
    async with serving(auth=auth) as broker:
        client = await http(broker)
        answer = await client.get("/v1/stats", "Authorization: Bearer fw_SECRET", "X-Request-Id: guess-1")

    assert (answer.status, answer.headers["x-request-id"]) == (401, "guess-1")
    (told,) = [vars(record) for record in caplog.records if record.getMessage() == "authentication failed"]
    assert told["request"] == "guess-1"
    assert "SECRET" not in f"{told}"


async def test_what_is_no_request_has_no_name(autojump_clock: MockClock) -> None:
    """Nothing was read of it."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(b"GET /healthz HTTP/1.1\r\nHost localhost\r\nX-Request-Id: x\r\n\r\n")
        answer = await client.answer()

    assert (answer.status, answer.headers.get("x-request-id")) == (400, None)
