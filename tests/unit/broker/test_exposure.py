"""A broker that asks nobody is not opened to the network by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from fanwire.broker import Auth, Broker, Config, Role, Tls
from fanwire.broker.cli.config_file import BadSettings, Given, resolve
from fanwire.broker.network.exposure import check_host

ANONYMOUS = Auth(roles=[Role(name="visitor")], anonymous_roles=["visitor"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"])
def test_an_address_of_the_network_is_refused(host: str) -> None:
    """Before anything is opened; unless one says that it is meant, or who may come in."""
    with pytest.raises(ValueError, match="open to the network and nobody must authenticate"):
        Broker(Config(host=host))

    Broker(Config(host=host, insecure=True))
    Broker(Config(host=host, auth=ANONYMOUS))
    Broker(Config(host=host, listen=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "::ffff:127.0.0.1"])
def test_this_machine_is_not_the_network(host: str) -> None:
    """Whichever way it is written."""
    Broker(Config(host=host))


def test_who_must_show_a_certificate_authenticates() -> None:
    """But not where that is optional."""
    check_host(Config(host="::", tls=Tls(cert="x", client_ca="y", client_certs="required")))
    with pytest.raises(ValueError, match="open to the network"):
        check_host(Config(host="::", tls=Tls(cert="x", client_ca="y", client_certs="optional")))


def test_without_tcp_there_is_a_unix_socket() -> None:
    """Which is not the network; without it nobody could connect."""
    Broker(Config(host=None, unix_path="f.sock"))
    with pytest.raises(ValueError, match="nobody could connect"):
        Config(host=None)


async def test_a_name_counts_as_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up when the broker listens."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_args: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:  # type: ignore[override]
            return [(2, 1, 6, "", ("0.0.0.0", 0))]

        async def getnameinfo(self, *_args: object) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(ValueError, match=r"broker\.example is open to the network"):
        async with Broker(Config(host="broker.example", port=0)).serving():
            pytest.fail("it serves")


def test_the_command_line_says_where_the_host_comes_from(tmp_path: Path) -> None:
    """And what to do."""
    with pytest.raises(BadSettings, match=r"^0\.0\.0\.0 is open .* or pass --insecure .*\(--host\)$"):
        resolve(None, {"host": Given("0.0.0.0", "--host")})
    file = tmp_path / "fanwire.toml"
    file.write_text('\nhost = "::"\n', encoding="utf-8")
    with pytest.raises(BadSettings, match=r"fanwire\.toml:2: :: is open to the network"):
        resolve(file, {})
    assert resolve(file, {"insecure": Given(True, "--insecure")}).config.insecure
