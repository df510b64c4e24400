import json
import signal
import socket

import pytest

from fanwire.version import __version__

from .cli_programs import ran, serving, started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number: signal.Signals) -> None:
    """The first SIGTERM or SIGINT ends the broker in good order, with status 0."""
    with serving() as (broker, _url):
        status, out, err = broker.signalled(number)

    assert (status, out) == (0, "")
    assert f"event=draining signal={number.name}" in err
    assert "event=drained" in err


def test_a_drain_tells_the_clients() -> None:
    """A subscriber hears that the broker goes, and waits for another one."""
    with serving() as (broker, url), started("sub", "a", url=url) as subscriber:
        subscriber.heard("^listening to a;", subscriber.stderr)
        status, _, _ = broker.signalled(signal.SIGTERM)
        subscriber.heard("^connection lost: trying to reach the broker again$", subscriber.stderr)

    assert status == 0


def test_a_second_signal_ends_it_at_once() -> None:
    """While a client that does not read keeps the drain waiting, a second SIGTERM needs no more patience."""
    slow = ("--drain-timeout", "600", "--linger", "600")
    with (
        serving(*slow) as (broker, url),
        socket.create_connection(("127.0.0.1", int(url[:-1].split(":")[2]))) as client,
    ):
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert client.recv(12) == b"HTTP/1.1 101"
        broker.process.send_signal(signal.SIGTERM)
        broker.heard("event=draining", broker.stderr)
        status, _, _ = broker.signalled(signal.SIGTERM)

    assert status == 128 + signal.SIGTERM


def test_a_port_in_use_is_told() -> None:
    """A second broker on the same port says what to do, on one line, and fails."""
    with serving() as (_broker, url):
        port = url[:-1].split(":")[2]
        status, out, err = ran("serve", "--port", port)

    assert (status, out) == (1, "")
    assert err == f"error: 127.0.0.1:{port} is in use: another broker? choose another with --port\n"


def test_the_operators_port_in_use_is_told() -> None:
    """By its own name: the other port is free."""
    with serving() as (_broker, url):
        port = url[:-1].split(":")[2]
        status, out, err = ran("serve", "--port", "0", "--admin-port", port)

    assert (status, out) == (1, "")
    assert err == f"error: 127.0.0.1:{port} is in use: another broker? choose another with --admin-port\n"


def test_an_address_of_another_machine_is_told() -> None:
    """An address that this machine does not have (RFC 5737) is no traceback."""
    status, _, err = ran("serve", "--host", "192.0.2.1", "--port", "0", "--insecure")

    assert status == 1
    assert err == "error: 192.0.2.1 is no address of this machine: choose another with --host\n"


def test_the_log_can_be_json() -> None:
    """With --log-format json every line of the log is an object."""
    with serving("--log-format", "json") as (broker, _url):
        _, _, err = broker.signalled(signal.SIGTERM)

    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events == ["starting", "listening", "draining", "drained"]


def test_the_log_can_be_quiet() -> None:
    """Above its level nothing is logged."""
    with serving("--log-level", "error") as (broker, _url):
        status, _, err = broker.signalled(signal.SIGTERM)

    assert (status, err) == (0, "")


def test_limits_reach_the_broker() -> None:
    """An option of the command line is the limit that clients meet."""
    with serving("--max-message", "1KiB") as (_broker, url):
        status, _, err = ran("pub", "a", "x" * 2000, url=url)

    assert status == 1
    assert "the broker takes 1024 at most" in err


def test_the_first_line_of_the_log_says_which_release_begins() -> None:
    """Before anything else that it may have to say."""
    with serving() as (broker, _url):
        first = broker.heard("event=", broker.stderr).string

    assert f"event=starting version={__version__}" in first
