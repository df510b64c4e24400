"""What the log says of connections, what it never says, and what it does in a storm."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Auth, AuthToken, Role
from fanwire.protocol import Fetch, Hello, Unsubscribe

from .cli_programs import COMMAND, DEADLINE_S, _environment
from .cli_programs import serving as serving_program
from .raw import REQUEST, RawClient, connected, serving

SECRET = "fw_SECRETSECRETSECRET"
ESCAPE = "\x1b[2J\nevent=forged"


def _facts(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.getMessage() == event]


def _auth() -> Auth:
    token = AuthToken(sha256="0" * 64, user="alice", roles=("all",))
    return Auth(tokens=(token,), roles=(Role(name="all", publish=(">",), subscribe=(">",)),), anonymous_roles=("all",))


async def test_refused_requests_carry_their_number(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """At the level debug: whose request, which one, and why; nothing of what it said."""
    caplog.set_level(logging.DEBUG, "fanwire.broker")
    async with serving() as broker:
        client = await connected(broker)
        await client.ask(Hello(1, name="laptop"))
        await client.ask(Unsubscribe(77, 5))
        await client.ask(Fetch(78, "kept.nowhere"))
        session = next(iter(broker._hub.sessions)).id

    told = [(each["req"], each["code"], each["client"], each["session"]) for each in _facts(caplog, "request refused")]
    assert told == [(77, "unknown_route", "laptop", session), (78, "not_kept", "laptop", session)]


async def test_above_debug_refused_requests_are_only_counted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that asks wrongly a million times makes no lines, and no clock runs for it."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    async with serving() as broker:
        client = await connected(broker)
        await client.ask(Unsubscribe(77, 5))
        assert (broker.statistics().rejected, broker._hub.repeats._watch) == (1, None)

    assert _facts(caplog, "request refused") == []


async def test_tokens_are_never_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """In the query, the header (also a malformed one), the list of subprotocols, or HELLO; at any level."""
    caplog.set_level(logging.DEBUG)
    secret = SECRET.encode()
    requests = [
        REQUEST.replace(b"GET / ", b"GET /?token=" + secret + b" "),
        REQUEST.replace(b"GET / ", b"GET /nothing?token=" + secret + b" "),
        REQUEST.replace(b"\r\nHost", b"\r\nAuthorization: Bearer " + secret + b"\r\nHost"),
        REQUEST.replace(b"\r\nHost", b"\r\nAuthorization: Basic " + secret + b"\r\nHost"),
        REQUEST.replace(b"\r\nHost", b"\r\nAuthorization Bearer " + secret + b"\r\nHost"),
        REQUEST.replace(b"fanwire.v1", b"bearer." + secret),
        b"GET /?token=" + secret + b"\r\n\r\n",
    ]
    async with serving(auth=_auth()) as broker:
        for request in requests:
            stream = await broker.open_stream()
            await stream.send_all(request)
            assert await stream.receive_some()
            await stream.aclose()
        client = await RawClient(await broker.open_stream()).open(Hello(1, token=SECRET))
        await client.ended()
        await wait_all_tasks_blocked()

    assert len(caplog.records) >= len(requests)
    assert not any(SECRET in f"{vars(record)}" for record in caplog.records)


def _storm(port: int, count: int) -> None:
    """Refused connects, one after the other, as quickly as that goes, with text that would like to be more."""
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as client, contextlib.suppress(ConnectionError):
            client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nUser-Agent: {ESCAPE[:4]}\r\n\r\n".encode())
            client.recv(1000)


def test_a_storm_of_refused_connects_is_few_lines_and_their_sum_is_right() -> None:
    """Each is told or counted; of one kind no more than twenty a second are written."""
    with serving_program("--log-format", "json") as (broker, url):
        _storm(int(url[:-1].split(":")[2]), 300)
        _, _, err = broker.signalled(signal.SIGTERM)

    lines = [json.loads(line) for line in err.splitlines()]
    written = [line for line in lines if line["event"] == "handshake refused"]
    more = sum(line["more"] for line in lines if line["event"] == "and more in the last second")
    assert len(written) + more == 300
    assert all(line["remote"].startswith("127.0.0.1:") and line["session"] for line in written)


def test_a_client_cannot_write_lines_of_the_log() -> None:
    """Names, topics and the request are text from outside."""
    with serving_program("--log-level", "debug") as (broker, url):
        port = int(url[:-1].split(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /\x1b[2J%0a HTTP/1.1\r\nHost: x\r\nUser-Agent: \x1b[31m\r\n\r\n")
            assert b" 400 " in client.recv(1000)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall("GET /é\x9b\u2028 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 40" in client.recv(1000)
        _, _, err = broker.signalled(signal.SIGTERM)

    assert all(line.isprintable() and line.startswith("timestamp=") for line in err.splitlines())


def test_a_broker_whose_log_nobody_reads_serves_and_ends() -> None:
    """Standard error is a pipe that is full: connections are answered, SIGTERM drains, the status is 0."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"." * 4096):
            pass
    os.set_blocking(write, True)
    command = [*COMMAND, "serve", "--port", "0", "--log-level", "debug"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write, text=True, env=_environment(None)) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rstrip("/\n").split(":")[2])
            _storm(port, 50)
            process.send_signal(signal.SIGTERM)
            status = process.wait(DEADLINE_S)
        finally:
            process.kill()
            os.close(read)
            os.close(write)

    assert status == 0
