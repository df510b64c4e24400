"""TLS on the broker's own port, over real sockets."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from trio.testing import wait_all_tasks_blocked

from fanwire import Broker, Config, ConnectionFailed, Refused, connect
from fanwire.broker import Auth, AuthCertificate, Role, Tls
from fanwire.broker.settings.tls import load
from fanwire.protocol import Hello, Ok, Welcome
from tests.certificates import authority_file, client_certificate, client_context, issue
from tests.integration.raw import REQUEST, RawClient
from tests.keys import bearer, in_query, known

ROLES = [Role(name="all", publish=[">"], subscribe=[">"]), Role(name="own", subscribe=["user.{sub}.>"])]


_OPEN: list[trio.abc.Stream] = []
"""Streams that a test has opened, to be closed at its end."""


@asynccontextmanager
async def _serving(tls: Tls, **settings: Any) -> AsyncIterator[Broker]:
    async with Broker(Config(port=0, tls=tls, **settings)).serving() as broker:
        try:
            yield broker
        finally:
            while _OPEN:
                await trio.aclose_forcefully(_OPEN.pop())


async def _plain(broker: Broker) -> trio.SocketStream:
    assert broker.port is not None
    stream = await trio.open_tcp_stream("127.0.0.1", broker.port)
    _OPEN.append(stream)
    return stream


async def _stream(broker: Broker, context: ssl.SSLContext | None = None) -> trio.SSLStream[trio.SocketStream]:
    tcp = await _plain(broker)
    stream = trio.SSLStream(tcp, context or client_context(), server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    return stream


async def _welcomed(broker: Broker, context: ssl.SSLContext | None = None, request: bytes = REQUEST) -> RawClient:
    return await RawClient(await _stream(broker, context)).open(request=request)


async def _ends(stream: trio.abc.Stream, data: bytes = b"") -> bool:
    """Whether nothing comes back any more."""
    try:
        await stream.send_all(data)
        return not await stream.receive_some()
    except trio.BrokenResourceError:
        return True


def _serial(stream: trio.SSLStream[trio.SocketStream]) -> object:
    return stream.getpeercert()["serialNumber"]


async def test_publish_and_subscribe(tmp_path: Path) -> None:
    """With the SDK, large messages included; the URL says wss."""
    async with _serving(issue(tmp_path)) as broker:
        url = broker.urls[0].replace("127.0.0.1", "localhost")
        assert url.startswith("wss://localhost:")
        async with connect(url, ssl_context=client_context()) as client, client.subscribe("t") as subscription:
            for size in (1, 100_000, 1_000_000):
                client.publish_nowait("t", b"x" * size, raw=True)
                assert len((await anext(subscription)).payload) == size
            assert broker.connections()[0].address == "127.0.0.1"


async def test_only_modern_tls_is_spoken(tmp_path: Path) -> None:
    """1.2 with forward secrecy, 1.3; ALPN says http/1.1; nothing can be renegotiated."""
    async with _serving(issue(tmp_path)) as broker:
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            context = client_context(maximum_version=version)
            context.set_alpn_protocols(["h2", "http/1.1"])
            stream = await _stream(broker, context)
            assert (stream.version(), stream.selected_alpn_protocol()) == (name, "http/1.1")
            assert stream.cipher()[0].startswith(("ECDHE-", "TLS_"))
            await stream.aclose()
        old = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        old.set_ciphers("AES128-SHA:AES256-SHA256:AES128-GCM-SHA256")
        with pytest.raises(trio.BrokenResourceError):
            await _stream(broker, old)
        assert broker.statistics().turned_away == {"tls": 1}

    loaded = load(issue(tmp_path))
    assert loaded is not None
    assert loaded.context.options & ssl.OP_NO_RENEGOTIATION


async def test_the_oldest_version_can_be_raised(tmp_path: Path) -> None:
    """To 1.3."""
    async with _serving(attrs.evolve(issue(tmp_path), min_version="1.3")) as broker:
        assert (await _stream(broker)).version() == "TLSv1.3"
        with pytest.raises(trio.BrokenResourceError):
            await _stream(broker, client_context(maximum_version=ssl.TLSVersion.TLSv1_2))


async def test_a_tls_handshake_that_stalls_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the deadline of all handshakes, wherever it stalls; it is counted, and others are served meanwhile."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    async with _serving(issue(tmp_path), handshake_timeout_s=2.0, linger_s=0.2) as broker:
        stalled = []
        for begun in (b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16"):
            stream = await _plain(broker)
            await stream.send_all(begun or b"\x16\x03")
            stalled.append(stream)
        await (await _welcomed(broker)).expect(Welcome)
        for stream in stalled:
            assert await stream.receive_some() == b""
        assert broker.statistics().turned_away == {"tls": 3}
        silent = await _stream(broker)  # TLS is up, and then no request comes: the same deadline
        assert await silent.receive_some() == b""

    assert "turned away" in caplog.text


async def test_plain_http_to_the_tls_port_is_told(tmp_path: Path) -> None:
    """In plain HTTP, and to the SDK's user in words."""
    async with _serving(issue(tmp_path)) as broker:
        with pytest.raises(Refused, match="TLS is spoken here: connect with wss"):
            async with connect(f"ws://localhost:{broker.port}/"):
                pytest.fail("connected")
        assert broker.statistics().turned_away == {"tls": 1}


async def test_bytes_that_are_neither(tmp_path: Path) -> None:
    """Are the end of that connection alone."""
    async with _serving(issue(tmp_path)) as broker:
        stream = await _plain(broker)
        await stream.send_all(b"\x80" * 3000)
        assert await _ends(stream)
        await (await _welcomed(broker)).expect(Welcome)


async def test_tls_to_the_plain_port_is_refused_at_once() -> None:
    """Not after the deadline: a ClientHello never ends like a request."""
    async with Broker(Config(port=0, handshake_timeout_s=600)).serving() as broker:
        with trio.fail_after(30), pytest.raises(ConnectionFailed, match="no TLS with"):
            async with connect(f"wss://localhost:{broker.port}/", ssl_context=client_context()):
                pytest.fail("connected")


# ----------------------------------------------------------------- certificates


async def test_a_reload_takes_the_new_certificate_and_keeps_old_connections(tmp_path: Path) -> None:
    """The files have changed, the settings have not."""
    tls = issue(tmp_path)
    async with _serving(tls) as broker:
        old = await _welcomed(broker)
        await old.expect(Welcome)
        assert isinstance(old.stream, trio.SSLStream)
        route = await old.subscribe("t")
        issue(tmp_path)
        assert await broker.reload(broker.config) == ()
        new = await _stream(broker)

        assert _serial(new) != _serial(old.stream)
        broker.publish("t", b"x")
        assert (await old.payloads(1), route > 0) == ([b"x"], True)


def _put_another_key(tls: Tls) -> None:
    other = issue(Path(tls.cert).parent, name="other")
    assert other.key is not None
    assert tls.key is not None
    Path(tls.key).write_bytes(Path(other.key).read_bytes())


def _put_a_password(tls: Tls) -> None:
    assert tls.key is not None
    key = load_pem_private_key(Path(tls.key).read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    Path(tls.key).write_bytes(encrypted)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda tls: Path(tls.cert).unlink(), r"tls\.cert: .*broker\.pem: No such file"),
        (lambda tls: Path(tls.cert).write_text("nothing"), r"tls\.cert: .*broker\.pem: there is no certificate"),
        (lambda tls: Path(tls.key).unlink(), r"tls\.key: .*broker\.key: No such file"),
        (lambda tls: Path(tls.key).write_text("nothing"), r"tls\.key: .*broker\.key: there is no private key"),
        (_put_another_key, r"tls\.key: .*broker\.key: it does not belong to"),
        (_put_a_password, r"tls\.key: .*broker\.key: the key has a password"),
    ],
)
async def test_a_bad_file_changes_nothing(tmp_path: Path, spoil: Any, why: str) -> None:
    """And is named, with what is wrong with it; neither do other settings of that reload count."""
    tls = issue(tmp_path)
    async with _serving(tls) as broker:
        before = _serial(await _stream(broker))
        config = broker.config
        spoil(tls)
        with pytest.raises(ValueError, match=why):
            await broker.reload(attrs.evolve(config, queue=5))

        assert broker.config is config
        assert _serial(await _stream(broker)) == before
    with pytest.raises(ValueError, match=why):
        Broker(Config(tls=tls))


def test_an_authority_must_be_one(tmp_path: Path) -> None:
    """Else everybody, or nobody, would be verified."""
    (tmp_path / "ca.pem").write_text("nothing")
    tls = issue(tmp_path)
    for path, why in (("ca.pem", "there is no certificate"), ("none.pem", "No such file")):
        with pytest.raises(ValueError, match=rf"tls\.client_ca: .*{why}"):
            load(attrs.evolve(tls, client_ca=str(tmp_path / path), client_certs="required"))
    with pytest.raises(ValueError, match="either both"):
        Tls(cert="x", client_certs="required")
    with pytest.raises(ValueError, match="either both"):
        Tls(cert="x", client_ca="x")
    with pytest.raises(ValueError, match="must be one of"):
        Tls(cert="x", min_version="1.1")


async def test_tls_is_not_turned_on_or_off_by_a_reload(tmp_path: Path) -> None:
    """The port's clients speak one or the other."""
    async with _serving(issue(tmp_path)) as broker:
        assert await broker.reload(attrs.evolve(broker.config, tls=None)) == ("tls",)
        await _stream(broker)


async def test_a_reload_under_load_loses_nobody(tmp_path: Path) -> None:
    """Clients come, publish and listen while the certificate changes again and again."""
    async with _serving(issue(tmp_path)) as broker:
        url = f"wss://localhost:{broker.port}/"

        async def visit() -> None:
            for number in range(5):
                async with (
                    connect(url, ssl_context=client_context(), reconnect=False) as client,
                    client.subscribe("t") as subscription,
                ):
                    await client.publish("t", number)
                    await anext(subscription)

        listener = await _welcomed(broker)
        await listener.expect(Welcome)
        await listener.subscribe("t")
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(visit)
            while nursery.child_tasks:
                issue(tmp_path)
                await broker.reload(broker.config)
                await trio.sleep(0.01)

        assert len(await listener.payloads(40)) == 40
        assert (broker.statistics().turned_away, broker.statistics().connections_refused) == ({}, 0)


@pytest.mark.parametrize(("days", "event"), [(3, "expires soon"), (-1, "has expired"), (60, None)])
async def test_the_end_of_the_certificate_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: float, event: str | None
) -> None:
    """In the log two weeks before, and in the figures always."""
    tls = issue(tmp_path, days=days)
    async with _serving(tls) as broker:
        await wait_all_tasks_blocked()
        left = broker.statistics().certificate_expires_in_s

    assert left is not None
    assert abs(left - days * 86_400) < 600
    assert [record.message for record in caplog.records if "certificate" in record.message] == (
        [f"the certificate {event}"] if event else []
    )


# ----------------------------------------------------------- client certificates


def _mutual(folder: Path, client_certs: str = "optional") -> Tls:
    return attrs.evolve(issue(folder), client_ca=authority_file(folder), client_certs=client_certs)


def _auth(**settings: Any) -> Auth:
    return Auth(**{
        "certificate_user": "cn", "roles": ROLES, "certificates": [AuthCertificate(user="feeder", roles=["all"])],
        "tokens": [known("fw_alice", "alice", "own"), known("fw_feeder", "feeder", "own")], **settings,
    })  # fmt: skip


async def _greeting(broker: Broker, certificate: trustme.LeafCert | None, request: bytes = REQUEST) -> dict[str, Any]:
    client = await _welcomed(broker, client_context(certificate), request)
    greeting = (await client.expect(Welcome)).greeting
    await client.close()
    return dict(greeting)


async def test_a_certificate_says_who_comes(tmp_path: Path) -> None:
    """Its roles are those of the settings, by user; it ends with the certificate."""
    async with _serving(_mutual(tmp_path), auth=_auth(default_roles=["own"])) as broker:
        feeder = await _greeting(broker, client_certificate("x.example", common_name="feeder"))
        other = await _greeting(broker, client_certificate("x.example", common_name="other"))

    assert (feeder["user"], feeder["permissions"]["publish"]) == ("feeder", [">"])
    assert (other["user"], other["permissions"]) == ("other", {"subscribe": ["user.other.>"]})
    assert feeder["expires_in"] > 1000


@pytest.mark.parametrize(
    ("kind", "names", "user"),
    [("email", ["me@host.example"], "me@host.example"), ("dns", ["feed.example"], "feed.example")],
)
async def test_other_names_of_a_certificate(tmp_path: Path, kind: str, names: list[str], user: str) -> None:
    """Mail address, host."""
    auth = _auth(certificate_user=kind, certificates=[AuthCertificate(user=user, roles=["all"])])
    async with _serving(_mutual(tmp_path), auth=auth) as broker:
        assert (await _greeting(broker, client_certificate(*names)))["user"] == user


async def _refused(broker: Broker, certificate: trustme.LeafCert | None) -> bytes:
    stream = await _stream(broker, client_context(certificate))
    await stream.send_all(REQUEST)
    answer = await stream.receive_some(12)
    await trio.aclose_forcefully(stream)
    return bytes(answer)


async def test_a_certificate_without_a_user_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of that name, several, one without roles, one that would widen a pattern: 403, counted and logged."""
    bad = [
        client_certificate("x.example"),
        client_certificate("x.example", common_name="nobody"),
        client_certificate("x.example", common_name="a.>"),
    ]
    async with _serving(_mutual(tmp_path), auth=_auth(anonymous_roles=["all"])) as broker:
        for certificate in bad:
            assert await _refused(broker, certificate) == b"HTTP/1.1 403"
        auth = _auth(default_roles=["own"], certificates=[])
        await broker.reload(attrs.evolve(broker.config, auth=auth))
        assert await _refused(broker, client_certificate("x.example", common_name="a.>")) == b"HTTP/1.1 403"
        await broker.reload(attrs.evolve(broker.config, auth=attrs.evolve(auth, certificate_user="dns")))
        assert await _refused(broker, client_certificate("a", "b", common_name="c")) == b"HTTP/1.1 403"

        assert broker.statistics().unauthenticated == {"certificate": 5}
    assert "authentication failed" in caplog.text


async def test_only_certificates_of_the_authority_count(tmp_path: Path) -> None:
    """Another one's, and none where one is required, are the end of the handshake."""
    other = client_certificate("x.example", common_name="feeder", authority=trustme.CA())
    for client_certs, certificates in (("optional", [other]), ("required", [other, None])):
        async with _serving(_mutual(tmp_path, client_certs), auth=_auth()) as broker:
            for number, certificate in enumerate(certificates, 1):
                stream = await _stream(broker, client_context(certificate))
                assert await _ends(stream, REQUEST)  # with TLS 1.3 a client's own handshake is done before
                assert broker.statistics().turned_away == {"tls": number}
            assert (await _greeting(broker, client_certificate("x.example", common_name="feeder")))["user"] == "feeder"


async def test_a_token_counts_more_than_a_certificate(tmp_path: Path) -> None:
    """In the handshake: another user's is taken, a bad one refused. Afterwards a connection stays with its user."""
    feeder = client_certificate("x.example", common_name="feeder")
    async with _serving(_mutual(tmp_path), auth=_auth()) as broker:
        for request in (bearer("fw_alice"), in_query("fw_alice")):
            assert (await _greeting(broker, feeder, request))["user"] == "alice"
        stream = await _stream(broker, client_context(feeder))
        await stream.send_all(bearer("fw_wrong"))
        assert await stream.receive_some(12) == b"HTTP/1.1 401"

        renewed, stranger = [await _welcomed(broker, client_context(feeder)) for _ in range(2)]
        await renewed.expect(Welcome)
        answer = await renewed.ask(Hello(1, token="fw_feeder"))
        assert isinstance(answer, Ok)
        assert answer.result["permissions"] == {"subscribe": ["user.feeder.>"]}
        await stranger.expect(Welcome)
        await stranger.send(Hello(1, token="fw_alice"))
        assert (await stranger.ended()).code == 4003


async def test_who_shows_no_certificate_may_bring_a_token(tmp_path: Path) -> None:
    """Where it is optional."""
    async with _serving(_mutual(tmp_path), auth=_auth()) as broker:
        assert (await _greeting(broker, None, bearer("fw_alice")))["user"] == "alice"


async def test_who_is_connected_by_a_certificate_is_looked_at_again(tmp_path: Path) -> None:
    """When the settings change, as with tokens."""
    async with _serving(_mutual(tmp_path), auth=_auth()) as broker:
        client = await _welcomed(broker, client_context(client_certificate("x.example", common_name="feeder")))
        await client.expect(Welcome)
        await broker.reload(attrs.evolve(broker.config, auth=_auth(certificates=[])))

        ended = await client.ended()
        assert (ended.code, ended.goodbye.code) == (4001, "unauthenticated")


async def test_a_page_with_a_browsers_certificate_must_be_ours(tmp_path: Path) -> None:
    """The browser shows it for any page, as it would a cookie; a token no page has by itself."""
    feeder = client_certificate("x.example", common_name="feeder")
    page = b"Origin: https://evil.example\r\nSec-WebSocket-Version"
    async with _serving(_mutual(tmp_path), auth=_auth()) as broker:
        stream = await _stream(broker, client_context(feeder))
        await stream.send_all(REQUEST.replace(b"Sec-WebSocket-Version", page))
        assert await stream.receive_some(12) == b"HTTP/1.1 403"
        request = bearer("fw_alice").replace(b"Sec-WebSocket-Version", page)
        assert (await _greeting(broker, feeder, request))["user"] == "alice"


def test_settings_of_certificates_must_fit_together() -> None:
    """Nobody would be asked; or nobody could have a role."""
    with pytest.raises(ValueError, match="nobody is asked for one"):
        Config(auth=_auth())
    with pytest.raises(ValueError, match="certificates need certificate_user"):
        _auth(certificate_user=None)
    with pytest.raises(ValueError, match="must be one of cn, email, uri, dns"):
        _auth(certificate_user="ou")
    with pytest.raises(ValueError, match="there is no role"):
        _auth(certificates=[AuthCertificate(user="a", roles=["none"])])
    with pytest.raises(ValueError, match="has no roles"):
        _auth(certificates=[AuthCertificate(user="a")])
