"""The PROXY header: any bytes are read as the format says, or refused; never more of them than it has."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from fanwire.broker.network.proxy_protocol import MOST_BYTES, SIGNATURE, BadProxyHeader, read_proxy_header
from fanwire.broker.settings.networks import Proxies
from fanwire.transport import memory_stream_pair

PORTS = b"\x12\x34\x56\x78"


def header(command: int, family: int, rest: bytes) -> bytes:
    """One of version 2."""
    return SIGNATURE + bytes((0x20 | command, family)) + len(rest).to_bytes(2, "big") + rest


def read(data: bytes, cuts: list[int] | None = None) -> tuple[str | None, bytes]:
    """What a stream of these bytes says, in these pieces; and what of them was left."""

    async def run() -> tuple[str | None, bytes]:
        ours, theirs = memory_stream_pair(capacity=1 << 20)
        places = sorted({0, *(cut % (len(data) + 1) for cut in cuts or ()), len(data)})

        async def send() -> None:
            for begin, end in pairwise(places):
                await theirs.send_all(data[begin:end])
                await trio.testing.wait_all_tasks_blocked()
            await theirs.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                address = await read_proxy_header(ours)
                rest = b""
                while more := await ours.receive_some():
                    rest += more
                return address, rest
            finally:
                nursery.cancel_scope.cancel()

    try:
        return trio.run(run)
    except* BadProxyHeader as group:
        raise group.exceptions[0] from None


TLVS = st.binary(max_size=200)
CUTS = st.lists(st.integers(0, 500), max_size=5)


@given(address=st.ip_addresses(), tlvs=TLVS, after=st.binary(max_size=50), cuts=CUTS)
def test_an_address_comes_through(
    address: IPv4Address | IPv6Address, tlvs: bytes, after: bytes, cuts: list[int]
) -> None:
    """Of either family, with any TLVs behind it, in any pieces; and not a byte of what follows is taken."""
    family = 0x11 if address.version == 4 else 0x21
    data = header(1, family, address.packed * 2 + PORTS + tlvs)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None

    assert read(data + after, cuts) == (str(mapped or address), after)


@given(family=st.integers(0, 255), rest=st.binary(max_size=300), after=st.binary(max_size=9))
def test_a_proxy_may_speak_for_itself(family: int, rest: bytes, after: bytes) -> None:
    """LOCAL: whatever else it says."""
    assert read(header(0, family, rest) + after) == (None, after)


@given(rest=st.binary(max_size=300), after=st.binary(max_size=9))
def test_a_client_without_an_address_of_ip_is_not_the_proxy_itself(rest: bytes, after: bytes) -> None:
    """PROXY with an unspecified family, or a Unix socket on the proxy's machine."""
    assert read(header(1, 0, rest) + after) == ("unknown", after)
    assert read(header(1, 0x31, bytes(216) + rest) + after) == ("unknown", after)


@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: SIGNATURE + rest), cuts=CUTS)
@example(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", [])
@example(b"GET / HTTP/1.1\r\n\r\n", [3])
def test_no_bytes_bring_anything_else_than_an_address_or_a_refusal(data: bytes, cuts: list[int]) -> None:
    """No other exception; and an address is one."""
    try:
        address, _ = read(data, cuts)
    except BadProxyHeader:
        return
    assert address in (None, "unknown") or str(ip_address(address or "")) == address


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (SIGNATURE[:-1] + b"\r", "no PROXY header"),
        (SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), "version 2"),
        (header(2, 0x11, bytes(12)), "command"),
        (header(1, 0x12, bytes(12)), "family"),
        (header(1, 0x41, bytes(12)), "family"),
        (header(1, 0x11, bytes(11)), "too short"),
        (header(1, 0x21, bytes(35)), "too short"),
        (header(1, 0x31, bytes(215)), "too short"),
        (header(1, 0x11, bytes(12))[:-1], "ended"),
        (header(1, 0x11, bytes(MOST_BYTES + 1)), "are not taken"),
        (b"", "ended"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    """And why."""
    with pytest.raises(BadProxyHeader, match=why):
        read(data)


def test_as_many_bytes_as_are_said_are_taken() -> None:
    """To the limit."""
    assert read(header(1, 0x11, bytes(MOST_BYTES)) + b"x") == ("0.0.0.0", b"x")


NEAR = Proxies(("10.0.0.0/8", "fd00::/8"))
TRUSTED = st.sampled_from(["10.0.0.1", "10.9.9.9", "fd00::1", "::ffff:10.0.0.7"])
FOREIGN = st.sampled_from(["192.0.2.1", "198.51.100.9", "2001:db8::1", "11.0.0.1"])


@given(
    claimed=st.lists(FOREIGN | TRUSTED | st.text(max_size=9), max_size=5),
    client=FOREIGN,
    way=st.lists(TRUSTED, max_size=20),
)
def test_what_the_client_claims_never_counts(claimed: list[str], client: str, way: list[str]) -> None:
    """Whatever it put into the header: the trusted proxies added its own address behind that."""
    forwarded = ", ".join([*claimed, client, *way])

    assert NEAR.client_behind("10.0.0.1", forwarded) == client


@given(nearest=FOREIGN | st.just("unix") | st.just("memory"), forwarded=st.none() | st.text() | FOREIGN)
def test_the_word_of_others_never_counts(nearest: str, forwarded: str | None) -> None:
    """Who is no trusted proxy stays who it is."""
    assert NEAR.client_behind(nearest, forwarded) == nearest


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (None, "10.0.0.1"),
        ("", "10.0.0.1"),
        ("192.0.2.1:5000", "192.0.2.1"),
        ("[2001:db8::1]:5000", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1, unknown", "10.0.0.1"),
        ("192.0.2.1, unknown, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("192.0.2.1,,", "10.0.0.1"),
        ("unix", "10.0.0.1"),
    ],
)
def test_forms_of_the_header(forwarded: str | None, client: str) -> None:
    """With ports, in brackets; and nothing is believed that stands left of what is no address."""
    assert NEAR.client_behind("10.0.0.1", forwarded) == client
