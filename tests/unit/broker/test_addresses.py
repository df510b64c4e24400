"""Who counts as one address, and how many of them are remembered."""

import attrs
import pytest

from fanwire.broker import Config
from fanwire.broker.limits import parties
from fanwire.broker.limits.addresses import Addresses, source_of

HOST = "198.51.100.7"
UNLIMITED = Config(max_connections_per_address=None, connect_rate=None, auth_failures=None)


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%1", "fe80::/64"),
    ],
)
def test_a_network_of_64_bits_is_one_source(host: str, source: str) -> None:
    """Who has one address of it has all; IPv4 in IPv6 is IPv4."""
    assert source_of(host) == source


@pytest.mark.parametrize("host", [None, "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_and_what_has_no_address_is_not_limited(host: str | None) -> None:
    """Unless the operator says so."""
    assert Addresses(Config()).find(host, 0.0) is None


def test_what_is_not_limited_is_a_setting() -> None:
    """A proxy's network; nobody."""
    proxies = Addresses(Config(unlimited_addresses="10.0.0.0/8"))
    assert proxies.find("10.1.2.3", 0.0) is None
    assert proxies.find("127.0.0.1", 0.0) is not None
    assert Addresses(Config(unlimited_addresses=None)).find("::1", 0.0) is not None
    with pytest.raises(ValueError, match="unlimited_addresses"):
        Config(unlimited_addresses="10.0.0.1/8")


def test_connections_are_counted_until_they_end() -> None:
    """One more than may be is refused, and does not count."""
    addresses = Addresses(attrs.evolve(UNLIMITED, max_connections_per_address=2))
    one = addresses.find(HOST, 0.0)
    assert one is not None
    assert addresses.refusal(one, 0.0) is None
    assert addresses.find(HOST, 0.0) is one
    assert addresses.refusal(one, 0.0) is None
    assert addresses.refusal(one, 0.0) == "max_connections_per_address"

    addresses.leave(one, 0.0)

    assert addresses.refusal(one, 0.0) is None
    addresses.leave(one, 0.0)
    addresses.leave(one, 0.0)
    assert len(addresses) == 0, "nothing is left to remember"


def test_who_comes_too_often_is_remembered_after_it_has_gone() -> None:
    """Ten seconds' worth may come at once; then one at a time."""
    addresses = Addresses(attrs.evolve(UNLIMITED, connect_rate=1))
    answers = []
    one = addresses.find(HOST, 0.0)
    assert one is not None
    for _ in range(12):
        assert addresses.find(HOST, 0.0) is one
        answers.append(addresses.refusal(one, 0.0))
        if answers[-1] is None:
            addresses.leave(one, 0.0)

    assert answers == [None] * 10 + ["connect_rate"] * 2
    assert len(addresses) == 1
    assert addresses.find(HOST, 1.0) is one
    assert addresses.refusal(one, 1.0) is None


def test_idle_addresses_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was heard of longest ago is forgotten first; those with connections stay."""
    monkeypatch.setattr(parties, "MOST_IDLE", 10)
    addresses = Addresses(attrs.evolve(UNLIMITED, connect_rate=1))
    here = addresses.find(HOST, 0.0)
    assert here is not None
    assert addresses.refusal(here, 0.0) is None
    for number in range(100):
        one = addresses.find(f"192.0.2.{number}", 0.0)
        assert one is not None
        assert addresses.refusal(one, 0.0) is None
        addresses.leave(one, 0.0)

    assert len(addresses) == 11
    assert addresses.find(HOST, 0.0) is here
    again = addresses.find("192.0.2.99", 0.0)
    assert again is one
    assert addresses.find("192.0.2.0", 0.0) is not None


def test_idle_addresses_are_forgotten_when_nothing_is_left_to_remember() -> None:
    """Two are looked at for each that comes."""
    addresses = Addresses(attrs.evolve(UNLIMITED, connect_rate=1))
    for number in range(100):
        one = addresses.find(f"192.0.2.{number}", 0.0)
        assert one is not None
        addresses.refusal(one, 0.0)
        addresses.leave(one, 0.0)
    assert len(addresses) == 100

    for number in range(120):
        addresses.find(f"198.51.100.{number}", 1000.0)

    assert len(addresses) <= 2


def test_a_reload_fills_the_budgets_only_if_it_changes_them() -> None:
    """Else every SIGHUP would let in who came too often."""
    config = attrs.evolve(UNLIMITED, auth_failures=1)
    addresses = Addresses(config)
    one = addresses.find(HOST, 0.0)
    assert one is not None
    assert one.guesses is not None
    one.guesses.take(1, 0.0)

    addresses.change(attrs.evolve(config, queue=5))
    assert addresses.refusal(one, 0.0) == "auth_failures"

    addresses.change(attrs.evolve(config, auth_failures=2))
    assert addresses.refusal(one, 0.0) is None
