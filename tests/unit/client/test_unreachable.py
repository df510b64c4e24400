"""A broker that cannot be reached: one line with the reason and what to do, and the system's error beside it."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import traceback
from pathlib import Path

import pytest
import trio

from fanwire.client import ConnectionFailed, connect
from fanwire.client.connecting.unreachable import no_stream, no_tls
from fanwire.client.url import parse_url


class _Nowhere(trio.abc.HostnameResolver):
    """Knows no name."""

    async def getaddrinfo(self, *_args: object, **_options: object) -> list[object]:  # type: ignore[override]  # fails
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_args: object, **_options: object) -> tuple[str, str]:
        raise NotImplementedError


async def _failure(url: str) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        async with connect(url):
            pytest.fail("connected")
    assert str(caught.value).count("\n") == 0
    return caught.value


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


async def test_nobody_listens() -> None:
    """The system's own words, and its error; a traceback has no more than ours."""
    url = f"ws://127.0.0.1:{_free_port()}/"
    failure = await _failure(url)

    assert str(failure) == (
        f"cannot reach {url}: Connection refused; is a broker running? start one with: fanwire serve"
    )
    assert isinstance(failure.cause, ConnectionRefusedError)
    assert "direct cause" not in "".join(traceback.format_exception(failure))


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    """The same, for Unix sockets."""
    failure = await _failure(f"ws+unix:{tmp_path}/none")

    assert ": No such file or directory; is a broker running?" in str(failure)
    assert isinstance(failure.cause, FileNotFoundError)


async def test_a_name_that_is_not_known() -> None:
    """It is the name that is wrong, and no broker has to be started."""
    trio.socket.set_custom_hostname_resolver(_Nowhere())
    failure = await _failure("ws://broker.invalid:9473/")

    assert str(failure) == (
        "cannot find the host 'broker.invalid' of ws://broker.invalid:9473/: Name or service not known;"
        " is the name right?"
    )
    assert isinstance(failure.cause, socket.gaierror)


@pytest.mark.parametrize("variables", [{"http_proxy": "http://p:1"}, {"ALL_PROXY": "http://p:1"}])
async def test_a_proxy_that_is_not_used_is_named(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs would go through it, so the error says that this one does not, unless it need not."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    url = f"ws://127.0.0.1:{_free_port()}/"
    assert "proxy" not in str(await _failure(url))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert f"environment variable {next(iter(variables)).lower()} names is not used" in str(await _failure(url))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "proxy" not in str(await _failure(url))


def test_several_addresses_are_one_line() -> None:
    """Each reason once."""
    refused = [OSError(errno.ECONNREFUSED, f"Error connecting to {n}") for n in range(3)]
    away = OSError(errno.EHOSTUNREACH, "Error connecting to 4")
    tried = OSError("all attempts failed")
    tried.__cause__ = ExceptionGroup("all attempts failed", [*refused, away])
    failure = no_stream(parse_url("ws://h:1/"), tried)

    assert str(failure).startswith("cannot reach ws://h:1/: Connection refused, No route to host; is a broker running?")
    assert failure.cause is refused[0]
    assert str(no_stream(parse_url("ws://h:1/"), away)) == (
        "cannot reach ws://h:1/: No route to host; is the address right, and the network up?"
    )


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("WRONG_VERSION_NUMBER", "it does not speak TLS (WRONG_VERSION_NUMBER); without TLS the URL begins with ws://"),
        ("CERTIFICATE_EXPIRED", "[SSL: CERTIFICATE_EXPIRED] (_ssl.c:1)"),
    ],
)
def test_tls_failures_are_told_apart(reason: str, text: str) -> None:
    """Who speaks no TLS, and what OpenSSL says otherwise."""
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    broken = trio.BrokenResourceError()
    broken.__cause__ = error
    failure = no_tls(parse_url("wss://h/"), broken)

    assert str(failure) == f"no TLS with wss://h/: {text}"
    assert failure.cause is error


def test_a_certificate_that_is_not_trusted() -> None:
    """It says why, and how one trusts it."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    broken = trio.BrokenResourceError()
    broken.__cause__ = error

    assert "its certificate is not accepted: self-signed certificate; say whom to trust with ssl_context=…" in str(
        no_tls(parse_url("wss://h/"), broken)
    )
