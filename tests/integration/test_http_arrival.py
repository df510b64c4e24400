"""Who asks over HTTP, and from which page: the same rules as for WebSockets."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from fanwire import Broker, Config
from fanwire.broker import Auth, AuthCertificate, Role
from fanwire.broker.network.proxy_protocol import SIGNATURE
from tests.certificates import authority_file, client_certificate, client_context, issue
from tests.keys import known

from .http_client import HttpClient, http, serving

ALL = Role(name="all", publish=[">"], subscribe=[">"], operator=True)
EVIL = "Origin: https://evil.example"


async def _publish(client: HttpClient | Broker, *headers: str, query: str = "") -> int:
    if isinstance(client, Broker):
        client = await http(client)  # a refusal before the body was read is the end of its connection
    return (await client.ask("POST", f"/v1/publish/a{query}", *headers, body=b"x")).status


async def test_a_made_up_token_does_not_open_a_broker_that_asks_for_none() -> None:
    """A page can put one into its query without being asked by the browser."""
    async with serving() as broker:
        assert await _publish(broker, EVIL, query="?token=x") == 403
        assert await _publish(broker) == 200
        assert broker.statistics().turned_away == {"origin": 1}


async def test_a_list_of_origins_holds_for_http_too() -> None:
    """With a token and without."""
    auth = Auth(roles=[ALL], tokens=[known("fw_good", "alice", "all")])
    token = "Authorization: Bearer fw_good"
    async with serving(auth=auth, allowed_origins=["https://app.example"]) as broker:
        assert await _publish(broker, token) == 200
        assert await _publish(broker, token, "Origin: https://app.example") == 200
        assert await _publish(broker, token, EVIL) == 403
        assert await _publish(broker, token, "Origin: http://app.example") == 403


async def test_for_whom_a_proxy_speaks_is_not_on_this_machine() -> None:
    """So it is not told what the machine itself is told; the proxy's own health checks are."""
    here = ("127.0.0.0/8",)
    client_header = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 7)) + bytes(4) + b"\x12\x34\x56\x78"
    async with Broker(Config(port=0, trusted_proxies=here, proxy_protocol=True)).serving() as broker:
        assert broker.port is not None
        nobody = SIGNATURE + b"\x21\x00\x00\x00"
        for said, status in ((client_header, 403), (nobody, 403), (SIGNATURE + b"\x20\x00\x00\x00", 200)):
            async with await trio.open_tcp_stream("127.0.0.1", broker.port) as stream:
                await stream.send_all(said)
                assert (await HttpClient(stream).get("/v1/stats")).status == status


@pytest.mark.parametrize(("common_name", "status"), [("feeder", 200), ("nobody", 403), (None, 401)])
async def test_over_tls_a_certificate_says_who_asks(tmp_path: Path, common_name: str | None, status: int) -> None:
    """As it does for a WebSocket; a page of another site may not make use of it."""
    tls = attrs.evolve(issue(tmp_path), client_ca=authority_file(tmp_path), client_certs="optional")
    auth = Auth(certificate_user="cn", roles=[ALL], certificates=[AuthCertificate(user="feeder", roles=["all"])])
    certificate = client_certificate("x.example", common_name=common_name) if common_name else None
    async with Broker(Config(port=0, tls=tls, auth=auth)).serving() as broker:
        assert broker.port is not None
        tcp = await trio.open_tcp_stream("127.0.0.1", broker.port)
        async with tcp:
            stream = trio.SSLStream(
                tcp, client_context(certificate), server_hostname="localhost", https_compatible=True
            )
            client = HttpClient(stream)
            assert await _publish(client) == status
            if status == 200:
                assert await _publish(client, EVIL) == 403
