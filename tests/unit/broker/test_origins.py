"""Which pages may speak to the broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker import Config
from fanwire.broker.network.origin_check import why_refused
from fanwire.broker.network.peer import Peer
from fanwire.broker.settings.origins import read_origin

FAR, NEAR = Peer("192.0.2.1"), Peer("127.0.0.1", nearby=True)


def _may(
    origin: str | None, host: str | None, *allowed: str, peer: Peer = FAR, ambient: bool = True, secure: bool = False
) -> bool:
    peer = Peer(peer.address, nearby=peer.nearby, secure=secure)
    return why_refused(origin, host, Config(allowed_origins=allowed), peer, ambient=ambient) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "broker.example"),
        ("http://broker.example", "broker.example"),
        ("https://broker.example", "broker.example"),
        ("https://broker.example", "broker.example:443"),
        ("http://broker.example:9473", "broker.example:9473"),
        ("http://BROKER.example", "broker.EXAMPLE"),
        ("http://[::1]:9473", "[::1]:9473"),
    ],
)
def test_the_brokers_own_pages_and_programs_may(origin: str | None, host: str) -> None:
    """Host and port are those of `Host`; programs send no origin."""
    assert _may(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "broker.example"),
        ("http://broker.example:8000", "broker.example:9473"),
        ("http://broker.example", "broker.example:9473"),
        ("https://broker.example.evil.example", "broker.example"),
        ("https://evilbroker.example", "broker.example"),
        ("https://broker.example/", "broker.example"),
        ("https://broker.example@evil.example", "broker.example"),
        ("https://broker.example https://evil.example", "broker.example"),
        ("https://evil.example, https://broker.example", "broker.example"),
        ("null", "broker.example"),
        ("", "broker.example"),
        ("file://", "broker.example"),
        ("https://*.example", "*.example"),
        ("http://x", None),
        ("chrome-extension://broker.example", "broker.example"),
    ],
)
def test_other_pages_may_not_unless_they_have_a_token(origin: str, host: str | None) -> None:
    """Whatever they make of the header."""
    assert not _may(origin, host)
    assert _may(origin, host, ambient=False)


def test_where_tls_is_spoken_the_scheme_counts() -> None:
    """The network can forge a page of http."""
    assert not _may("http://broker.example", "broker.example", secure=True)
    assert _may("https://broker.example", "broker.example", secure=True)


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1:9473", True),
        ("localhost:9473", True),
        ("app.localhost", True),
        ("[::1]", True),
        ("rebound.example:9473", False),
        ("localhost.evil.example", False),
    ],
)
def test_a_name_that_anybody_could_point_here_is_not_believed(host: str, may: bool) -> None:
    """A page of rebound.example, whose name server now says 127.0.0.1, is not ours: here names prove nothing."""
    assert _may(f"http://{host}", host, peer=NEAR) is may
    assert _may(f"http://{host}", host, f"http://{host}", peer=NEAR)


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("https://app.example", True),
        ("https://app.example:443", True),
        ("https://APP.example", True),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://x.app.example", False),
        ("https://a.sub.example", True),
        ("https://a.b.sub.example", True),
        ("http://a.sub.example", False),
        ("https://a.sub.example:1", False),
        ("https://sub.example", False),
        ("https://evilsub.example", False),
        ("https://.sub.example", False),
        ("https://*.sub.example", False),
        ("http://10.0.0.1:8080", True),
        ("capacitor://localhost", True),
        ("https://broker.example", False),
        ("null", False),
        ("*", False),
    ],
)
@pytest.mark.parametrize("ambient", [True, False])
def test_a_list_is_the_whole_truth(origin: str, may: bool, ambient: bool) -> None:
    """Scheme, host and port; a pattern's scheme and port are exact, too. With a token or without."""
    allowed = ("https://app.example", "https://*.sub.example", "http://10.0.0.1:8080", "capacitor://localhost")

    assert _may(origin, "broker.example", *allowed, ambient=ambient) is may


def test_all_and_null_must_be_said() -> None:
    """`null` comes from files and sandboxes; * is everything."""
    assert _may("null", "x", "null")
    assert not _may("https://a.example", "x", "null")
    assert _may("null", "x", "*")
    assert _may("any thing", "x", "*")


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/", "https://", "https://*", "*.app.example", "https://a.*.example", ""]
)
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    """Else it would never match, and nobody would know why."""
    with pytest.raises(ValueError, match="allowed_origins"):
        Config(allowed_origins=[text])


@given(st.text() | st.from_regex(r"[a-z]+://[a-z0-9.*:\[\]-]*", fullmatch=True))
def test_no_text_makes_it_fall_over(text: str) -> None:
    """It is an origin or it is none."""
    origin = read_origin(text)

    assert origin is None or origin.scheme == text.lower().partition("://")[0]
