"""Who is at the other end, and from which page: proxies' words, and `Origin`, over real sockets and in memory."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from fanwire import Broker, Config, connect
from fanwire.broker import Auth, Role
from fanwire.broker.network.proxy_protocol import SIGNATURE
from fanwire.protocol import Welcome
from tests.certificates import client_context, issue
from tests.integration.cli_programs import ran, started
from tests.integration.raw import REQUEST, RawClient, connected, serving
from tests.keys import bearer, known

CLIENT = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 7)) + bytes(4) + b"\x12\x34\x56\x78"
CHECK = SIGNATURE + b"\x20\x00\x00\x00"
HERE = ("127.0.0.0/8",)


def _with(*headers: str, request: bytes = REQUEST) -> bytes:
    """A handshake with headers more, or others."""
    for header in headers:
        name = header.partition(":")[0].encode()
        lines = [line for line in request.split(b"\r\n") if not (name == b"Host" and line.startswith(b"Host:"))]
        request = b"\r\n".join([lines[0], header.encode("latin-1"), *lines[1:]])
    return request


@asynccontextmanager
async def _stream(broker: Broker) -> AsyncIterator[trio.SocketStream]:
    assert broker.port is not None
    stream = await trio.open_tcp_stream("127.0.0.1", broker.port)
    async with stream:
        yield stream


async def _address(broker: Broker, first: bytes = b"", request: bytes = REQUEST) -> str:
    """What the broker takes for the address of who says this."""
    async with _stream(broker) as stream:
        await stream.send_all(first)
        await (await RawClient(stream).open(request=request)).expect(Welcome)
        return broker.connections()[-1].address


async def _answer(stream: trio.abc.Stream, data: bytes) -> bytes:
    """All that comes back."""
    await stream.send_all(data)
    answer = b""
    try:
        while more := await stream.receive_some():
            answer += more
    except trio.BrokenResourceError:
        pass
    return answer


# ------------------------------------------------------------------------ proxies


async def test_a_trusted_proxy_says_for_whom_it_speaks(caplog: pytest.LogCaptureFixture) -> None:
    """By the header of the PROXY protocol; in connections, in those that are closed, and in the log."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    async with Broker(Config(port=0, trusted_proxies=HERE, proxy_protocol=True)).serving() as broker:
        assert await _address(broker, CLIENT) == "192.0.2.7"
        assert await _address(broker, CHECK) == "127.0.0.1"
        async with _stream(broker) as stream:
            assert (await _answer(stream, CLIENT + b"GET /x HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400")
        async with connect("ws://x/", open_stream=broker.open_stream):
            assert broker.connections()[-1].address == "memory"

    assert {each.address for each in broker.closed_connections()} == {"192.0.2.7", "127.0.0.1", "memory"}
    assert [vars(each)["remote"] for each in caplog.records if each.message == "handshake refused"] == ["192.0.2.7"]


@pytest.mark.parametrize(
    "said", [REQUEST, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n" + REQUEST, CLIENT[:12] + b"\x21\x11\xff\xff", b""]
)
async def test_a_bad_or_missing_proxy_header_from_a_proxy_is_the_end(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """None, version 1, one that is too long, one that does not come in time: closed without a word, counted, logged."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    config = Config(port=0, trusted_proxies=HERE, proxy_protocol=True, handshake_timeout_s=0.3)
    async with Broker(config).serving() as broker:
        async with _stream(broker) as stream:
            assert await _answer(stream, said) == b""
        assert (broker.statistics().turned_away, broker.statistics().connections_refused) == ({"proxy": 1}, 1)

    assert [vars(each)["where"] for each in caplog.records if each.message == "turned away"] == ["proxy"]


async def test_nobody_else_speaks_for_others() -> None:
    """Forged headers: PROXY is no request, X-Forwarded-For is passed over; also where other proxies are trusted."""
    others = Config(port=0, trusted_proxies=("10.0.0.0/8", "unix"), proxy_protocol=True)
    for config in (Config(port=0), others):
        async with Broker(config).serving() as broker:
            assert await _address(broker, request=_with("X-Forwarded-For: 192.0.2.7")) == "127.0.0.1"
            async with _stream(broker) as stream:
                assert (await _answer(stream, CLIENT + REQUEST)).startswith(b"HTTP/1.1 400")


async def test_x_forwarded_for_counts_from_the_right() -> None:
    """What the client claimed itself stands further left; repeated headers are one list."""
    async with Broker(Config(port=0, trusted_proxies=(*HERE, "10.0.0.0/8"))).serving() as broker:
        for headers, address in (
            (["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.3"], "192.0.2.7"),
            (["X-Forwarded-For: 10.0.0.3", "X-Forwarded-For: 6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (["X-Forwarded-For: nonsense"], "127.0.0.1"),
            ([], "127.0.0.1"),
        ):
            assert await _address(broker, request=_with(*headers)) == address


async def test_limits_on_addresses_hold_for_whom_a_proxy_speaks() -> None:
    """And not for the proxy, which has everybody's connections."""
    limits = Config(port=0, trusted_proxies=HERE, unlimited_addresses=None, max_connections_per_address=1)
    other = CLIENT.replace(bytes((192, 0, 2, 7)), bytes((192, 0, 2, 8)))
    async with Broker(attrs.evolve(limits, proxy_protocol=True)).serving() as broker:
        async with _stream(broker) as first, _stream(broker) as second:
            await first.send_all(CLIENT)
            await (await RawClient(first).open()).expect(Welcome)
            assert await _answer(second, CLIENT + REQUEST) == b""
            assert await _address(broker, other) == "192.0.2.8"
        assert broker.statistics().limited["max_connections_per_address"] == 1
        assert broker.statistics().connections_refused == 1
    async with Broker(limits).serving() as broker, _stream(broker) as first, _stream(broker) as second:
        request = _with("X-Forwarded-For: 192.0.2.7")
        await (await RawClient(first).open(request=request)).expect(Welcome)
        assert (await _answer(second, request)).startswith(b"HTTP/1.1 429 ")
        assert await _address(broker, request=_with("X-Forwarded-For: 192.0.2.8")) == "192.0.2.8"


async def test_guesses_at_tokens_are_those_of_whom_a_proxy_speaks_for() -> None:
    """Of one client behind it, over HTTP; others may go on."""
    auth = Auth(roles=[Role(name="all", subscribe=[">"])], tokens=[known("fw_good", "alice", "all")])
    config = Config(port=0, trusted_proxies=HERE, unlimited_addresses=None, auth=auth, auth_failures=1)
    async with Broker(config).serving() as broker:
        seen = []
        for client, token in (("192.0.2.7", "x"), ("192.0.2.7", "x"), ("192.0.2.7", "x"), ("192.0.2.8", "fw_good")):
            async with _stream(broker) as stream:
                head = f"X-Forwarded-For: {client}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
                answer = await _answer(stream, f"GET /v1/topics/a/last HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
                seen.append(int(answer[9:12]))

    assert (seen[0], 429 in seen[1:3], seen[3]) == (401, True, 404)


async def test_the_proxy_header_comes_before_tls(tmp_path: Path) -> None:
    """And what follows it belongs to TLS, though it came in the same packet."""
    config = Config(port=0, tls=issue(tmp_path), trusted_proxies=HERE, proxy_protocol=True)
    async with Broker(config).serving() as broker, _stream(broker) as tcp:

        class Prefixed(trio.abc.Stream):
            """Puts the header before the first bytes."""

            prefix = CLIENT

            async def send_all(self, data: Any) -> None:
                data, self.prefix = self.prefix + bytes(data), b""
                await tcp.send_all(data)

            async def wait_send_all_might_not_block(self) -> None:
                await tcp.wait_send_all_might_not_block()

            async def receive_some(self, max_bytes: int | None = None) -> Any:
                return await tcp.receive_some(max_bytes)

            async def aclose(self) -> None:
                await tcp.aclose()

        stream = trio.SSLStream(Prefixed(), client_context(), server_hostname="localhost", https_compatible=True)
        await (await RawClient(stream).open()).expect(Welcome)
        assert broker.connections()[0].address == "192.0.2.7"


def test_settings_of_proxies_are_checked() -> None:
    """A network with host bits, a name; and a protocol that nobody may speak."""
    for text in ("10.0.0.1/8", "proxy.example", ""):
        with pytest.raises(ValueError, match="trusted_proxies"):
            Config(trusted_proxies=[text])
    with pytest.raises(ValueError, match="a list of texts"):
        Config(trusted_proxies="10.0.0.0/8")
    with pytest.raises(ValueError, match="no proxy is trusted"):
        Config(proxy_protocol=True)


# ------------------------------------------------------------------------- origins


async def _status(broker: Broker, request: bytes) -> str:
    stream = await broker.open_stream()
    await stream.send_all(request)
    answer = bytes(await stream.receive_some(4096))
    await stream.aclose()
    return answer[9:12].decode()


async def test_cross_site_websocket_hijacking_is_refused(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """403, counted, and logged with the origin; pages of the same host and programs come in."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    async with serving() as broker:
        assert await _status(broker, _with("Origin: https://evil.example")) == "403"
        assert await _status(broker, _with("Origin: null")) == "403"
        assert await _status(broker, _with("Origin: http://test")) == "101"
        assert await _status(broker, REQUEST) == "101"
        await connected(broker)
        assert broker.statistics().turned_away == {"origin": 2}

    told = [vars(each) for each in caplog.records if each.message == "turned away"]
    assert [(each["where"], each["origin"], each["host"]) for each in told] == [
        ("origin", "https://evil.example", "test"), ("origin", "null", "test"),
    ]  # fmt: skip


async def test_with_a_token_a_page_may_come_from_anywhere_unless_there_is_a_list(autojump_clock: MockClock) -> None:
    """The page was given it. Who would be let in without one is asked where the page comes from."""
    roles = [Role(name="all", publish=[">"], subscribe=[">"])]
    auth = Auth(roles=roles, tokens=[known("fw_good", "alice", "all")])
    page = "Origin: https://other.example"
    async with serving(auth=auth) as broker:
        assert await _status(broker, _with(page, request=bearer("fw_good"))) == "101"
        assert await _status(broker, _with(page)) == "101"  # its token may yet come by HELLO

        await broker.reload(attrs.evolve(broker.config, auth=attrs.evolve(auth, anonymous_roles=("all",))))
        assert await _status(broker, _with(page)) == "403"
        assert await _status(broker, _with(page, request=bearer("fw_good"))) == "101"

        await broker.reload(attrs.evolve(broker.config, allowed_origins=("https://app.example",)))
        assert await _status(broker, _with(page, request=bearer("fw_good"))) == "403"
        assert await _status(broker, _with("Origin: https://app.example", request=bearer("fw_good"))) == "101"
        assert await _status(broker, _with("Origin: http://app.example", request=bearer("fw_good"))) == "403"


async def test_a_page_on_this_machine_proves_nothing_by_its_name() -> None:
    """DNS rebinding: the name has been pointed at 127.0.0.1. Behind a trusted proxy there is no browser."""
    rebound = _with("Origin: http://evil.example:9473", "Host: evil.example:9473")
    for proxies, status in (((), b"403"), (HERE, b"101")):
        async with Broker(Config(port=0, trusted_proxies=proxies)).serving() as broker, _stream(broker) as stream:
            await stream.send_all(rebound)
            assert (await stream.receive_some(4096))[9:12] == status


async def test_an_origin_cannot_forge_lines_of_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Line ends are no part of a header; what is long is cut."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    async with serving() as broker:
        assert await _status(broker, _with("Origin: https://a\nevent=x")) == "400"
        assert await _status(broker, _with(f"Origin: https://{'a' * 5000}")) == "403"

    assert all(len(vars(each).get("origin", "")) <= 64 for each in caplog.records)


# --------------------------------------------------------------------- Unix sockets


def _unix(path: Path, **settings: Any) -> Config:
    return Config(host=None, unix_path=str(path), **settings)


async def test_a_unix_socket_beside_tcp(tmp_path: Path) -> None:
    """The same broker; its file has its mode, and is gone at the end."""
    path = tmp_path / "f.sock"
    async with Broker(Config(port=0, unix_path=str(path), unix_mode="0600")).serving() as broker:
        assert path.stat().st_mode & 0o777 == 0o600
        tcp, unix = broker.urls
        assert unix == f"ws+unix:{path}"
        async with connect(unix) as here, connect(tcp) as there, there.subscribe("t") as subscription:
            await here.publish("t", "x")
            assert (await anext(subscription)).data == "x"
            assert sorted(each.address for each in broker.connections()) == ["127.0.0.1", "unix"]
    assert not path.exists()


async def test_a_unix_socket_alone(tmp_path: Path) -> None:
    """No port; and TLS is not spoken on it."""
    async with Broker(_unix(tmp_path / "f.sock", tls=issue(tmp_path))).serving() as broker:
        assert (broker.port, broker.urls) == (None, (f"ws+unix:{tmp_path}/f.sock",))
        async with connect(broker.urls[0]) as client:
            await client.publish("t", "x")


async def test_through_the_unix_socket_a_proxy_may_speak_for_others(tmp_path: Path) -> None:
    """If `unix` is among the trusted ones."""
    async with (
        Broker(_unix(tmp_path / "f.sock", trusted_proxies=["unix"])).serving() as broker,
        await trio.open_unix_socket(tmp_path / "f.sock") as stream,
    ):
        await (await RawClient(stream).open(request=_with("X-Forwarded-For: 192.0.2.7"))).expect(Welcome)
        assert broker.connections()[0].address == "192.0.2.7"


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    """Nobody answers: a broker was killed. Somebody does: it is theirs, and stays."""
    path = tmp_path / "f.sock"
    with started("serve", "--host", "none", "--unix-path", str(path)) as killed:
        await trio.to_thread.run_sync(killed.heard, "^listening on ws.unix:")
        status, _, err = await trio.to_thread.run_sync(lambda: ran("serve", "--host", "none", "--unix-path", str(path)))
        assert (status, err.count("\n")) == (1, 1)
        assert err.startswith(f"error: {path}: somebody listens there")
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
    assert path.exists()
    async with Broker(_unix(path)).serving() as broker:
        with pytest.raises(OSError, match="somebody listens there"):
            async with Broker(_unix(path)).serving():
                pytest.fail("it serves")
        async with connect(broker.urls[0]):
            pass


async def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    """Nor is a socket that another has put in the place of ours; and a port opened before is closed again."""
    file = tmp_path / "important"
    file.write_text("x")
    with pytest.raises(OSError, match="no socket"):
        async with Broker(_unix(file)).serving():
            pytest.fail("it serves")
    with pytest.raises(OSError, match="No such file"):
        async with Broker(Config(port=0, unix_path=str(tmp_path / "none" / "f.sock"))).serving():
            pytest.fail("it serves")
    path = tmp_path / "f.sock"
    async with Broker(_unix(path)).serving():
        path.unlink()
        path.write_text("another's")
    assert (file.read_text(), path.read_text()) == ("x", "another's")


@pytest.mark.parametrize("mode", ["rw", "660660", "0o660", "", 0o660])
def test_a_mode_is_octal(mode: Any) -> None:
    """As for chmod."""
    with pytest.raises(ValueError, match="unix_mode"):
        Config(unix_mode=mode)


# ---------------------------------------------------------------- the command line


def test_fanwire_serve_speaks_tls_and_takes_a_new_certificate_on_sighup(tmp_path: Path) -> None:
    """A bad file is told, and changes nothing; the next one counts."""
    tls = issue(tmp_path)
    assert tls.key is not None
    with started("serve", "--port", "0", "--tls-cert", tls.cert, "--tls-key", tls.key) as broker:
        broker.heard(r"^listening on wss://127\.0\.0\.1:\d+/$")
        Path(tls.cert).write_text("nothing")
        broker.process.send_signal(signal.SIGHUP)
        told = broker.heard('event="not reloaded"', broker.stderr).string
        assert "broker.pem: there is no certificate in it" in told
        issue(tmp_path, days=1)
        broker.process.send_signal(signal.SIGHUP)
        broker.heard("certificate expires soon", broker.stderr)
        broker.heard("event=reloaded", broker.stderr)
        status, _, _ = broker.signalled(signal.SIGTERM)

    assert status == 0


def test_a_certificate_that_cannot_be_used_ends_with_78(tmp_path: Path) -> None:
    """On the command line and in a file; each says where it was said."""
    status, _, err = ran("serve", "--tls-cert", str(tmp_path / "none.pem"))
    assert (status, err) == (
        78, f"error: --tls-cert: tls.cert: {tmp_path}/none.pem: No such file or directory\n",
    )  # fmt: skip
    file = tmp_path / "f.toml"
    file.write_text('\n[tls]\ncert = "none.pem"\n', encoding="utf-8")
    status, _, err = ran("config", "check", str(file))
    assert (status, err) == (78, f"error: {file}:2: tls.cert: {tmp_path}/none.pem: No such file or directory\n")
    file.write_text('[tls]\ncert = "a"\nclient_cert = "none"\n', encoding="utf-8")
    assert (
        "f.toml:3: tls.client_cert is no setting; did you mean 'client_certs'?" in ran("config", "check", str(file))[2]
    )
    assert "tls.cert is missing" in ran("serve", "--tls-key", "x")[2]


def test_options_override_pieces_of_the_section(tmp_path: Path) -> None:
    """The key stays the file's."""
    issue(tmp_path)
    other = issue(tmp_path, name="other")
    (tmp_path / "f.toml").write_text('[tls]\ncert = "broker.pem"\nkey = "other.key"\n', encoding="utf-8")
    status, out, _ = ran("config", "show", "--config", str(tmp_path / "f.toml"), "--tls-cert", other.cert)

    assert status == 0
    assert f"tls.cert = '{other.cert}'" in out
    assert f"tls.key = '{tmp_path}/other.key'" in out


def test_a_public_address_without_authentication_ends_with_78() -> None:
    """--insecure allows it, with a warning."""
    status, out, err = ran("serve", "--host", "0.0.0.0", "--port", "0")
    assert (status, out) == (78, "")
    assert err.startswith("error: 0.0.0.0 is open to the network and nobody must authenticate; say in [auth]")
    assert "--insecure" in err
    with started("serve", "--host", "0.0.0.0", "--port", "0", "--insecure") as broker:
        broker.heard(r"^listening on ws://0\.0\.0\.0:")
        broker.heard("open to the network, and nobody must authenticate", broker.stderr)
        assert broker.signalled(signal.SIGTERM)[0] == 0


def test_lists_of_the_command_line(tmp_path: Path) -> None:
    """With commas between; in a file they are lists."""
    (tmp_path / "f.toml").write_text('allowed_origins = ["https://a.example", "null"]\n', encoding="utf-8")
    status, out, _ = ran(
        "config", "show", "--config", str(tmp_path / "f.toml"), "--trusted-proxies", "10.0.0.0/8, unix"
    )

    assert status == 0
    assert 'allowed_origins = ["https://a.example", "null"]' in out
    assert 'trusted_proxies = ["10.0.0.0/8", "unix"]' in out
    status, _, err = ran("serve", "--allowed-origins", "a.example")
    assert status == 2
    assert "'a.example' is no origin" in err
