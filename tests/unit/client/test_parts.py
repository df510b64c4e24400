"""The small parts by themselves."""

import attrs
import pytest

from fanwire.client.config import Options, Settings
from fanwire.client.connecting.backoff import Backoff
from fanwire.client.connecting.decoding import Decoder, strictly
from fanwire.client.url import parse_url
from fanwire.protocol import Malformed


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://127.0.0.1:9473/", ("127.0.0.1", 9473, "/", False)),
        ("ws://broker", ("broker", 9473, "/", False)),
        ("wss://broker", ("broker", 443, "/", True)),
        ("wss://broker:9473/feed?x=1", ("broker", 9473, "/feed?x=1", True)),
        ("localhost:1234", ("localhost", 1234, "/", False)),
        ("localhost", ("localhost", 9473, "/", False)),
        ("ws://[::1]:5/", ("::1", 5, "/", False)),
    ],
)
def test_urls(url: str, expected: tuple[object, ...]) -> None:
    """What a URL means, with the defaults filled in."""
    assert attrs.astuple(parse_url(url)) == (*expected, None)


@pytest.mark.parametrize(
    ("url", "socket", "path"),
    [
        ("ws+unix:/run/f.sock", "/run/f.sock", "/"),
        ("ws+unix:///run/f.sock:/feed?x=1", "/run/f.sock", "/feed?x=1"),
    ],
)
def test_urls_of_unix_sockets(url: str, socket: str, path: str) -> None:
    """With a request path behind a colon, or without."""
    address = parse_url(url)

    assert (address.unix, address.path, address.host_header, address.tls) == (socket, path, "localhost", False)
    assert str(address) == f"ws+unix:{socket}:{path.partition('?')[0]}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://x/", "ws:// or wss://"),
        ("ws:///path", "no host"),
        ("ws://x:99999/", "port"),
        ("ws://x:abc/", "port"),
        ("ws://me:secret@x/", "token"),
        ("ws://x/#a", "fragment"),
        ("ws://x/ y", "spaces"),
        ("ws://[::1/", "no URL"),
        ("", "no host"),
        ("ws+unix:f.sock", "ws.unix:/run"),
        ("ws+unix:/f:/ y", "ws.unix:/run"),
    ],
)
def test_bad_urls(url: str, why: str) -> None:
    """The error says what is wrong, and keeps secrets."""
    with pytest.raises(ValueError, match=why) as caught:
        parse_url(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "header"), [("ws://x:80", "x"), ("wss://x", "x"), ("ws://x", "x:9473"), ("ws://[::1]", "[::1]:9473")]
)
def test_host_header(url: str, header: str) -> None:
    """With the port, unless it is the scheme's own."""
    assert parse_url(url).host_header == header


def test_settings_are_the_options() -> None:
    """`connect` takes every option by name, and no other."""
    assert set(Settings.__annotations__) == {field.name for field in attrs.fields(Options)}


@pytest.mark.parametrize("wrong", [{"ping_interval_s": 0}, {"outgoing_messages": 0}, {"on_outage": "maybe"}])
def test_bad_settings(wrong: dict[str, object]) -> None:
    """They are refused when they are given."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)  # type: ignore[arg-type]


def test_waits_double_up_to_the_most() -> None:
    """The largest waits possible."""
    backoff = Backoff(Options(draw=lambda: 1.0, reconnect_base_s=1.0, reconnect_most_s=5.0))

    assert [backoff.next_wait() for _ in range(5)] == [1, 2, 4, 5, 5]


def test_a_good_connection_resets_the_waits() -> None:
    """One that lived long enough."""
    backoff = Backoff(Options(draw=lambda: 1.0, reconnect_base_s=1.0, stable_after_s=10.0))
    backoff.next_wait()
    backoff.lived(9.9, too_slow=False)
    assert backoff.next_wait() == 2
    backoff.lived(10.0, too_slow=False)
    assert backoff.next_wait() == 1


@pytest.mark.parametrize(("stable_after_s", "enough_s"), [(10.0, 60.0), (100.0, 100.0)])
def test_a_connection_ended_for_slowness_must_have_lived_longer(stable_after_s: float, enough_s: float) -> None:
    """A minute, or what others need if that is more, before it resets the waits."""
    backoff = Backoff(Options(draw=lambda: 1.0, reconnect_base_s=1.0, stable_after_s=stable_after_s))
    backoff.next_wait()
    backoff.lived(enough_s - 0.1, too_slow=True)
    assert backoff.next_wait() == 2
    backoff.lived(enough_s, too_slow=True)
    assert backoff.next_wait() == 1


def test_the_hint_is_spread_after_the_first_attempt() -> None:
    """The broker drew it for one attempt; a broker that repeats itself is not asked in step."""
    backoff = Backoff(Options(draw=lambda: 0.5, reconnect_base_s=1.0))

    assert [backoff.next_wait(3.0) for _ in range(3)] == [3.0, 3.0 + 1.0, 3.0 + 2.0]


def test_each_message_is_decoded_by_itself() -> None:
    """Many messages at once give what one after the other gives."""
    assert Decoder().decode([b"\x91\x01\x91\x02", b"", b"\x91\x03"]) == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "messages",
    [
        [b"\x92\x01", b"\x91\x02"],  # cut off: would swallow what follows
        [b"\x91\x01", b"\x92\x01"],
        [b"\x92\x01", b"\xc0", b"\x91\x02"],  # … with a nil that would make up the number of ends
        [b"\xc1"],
        [b"\xa1\xff"],
        [b"\x81\x01\x02"],
        [b"\xd4\x05\x00"],
    ],
)
def test_what_is_wrong_is_left_to_the_strict_decoder(messages: list[bytes]) -> None:
    """The quick one gives up, the strict one says why, and the quick one is as good as new."""
    decoder = Decoder()

    assert decoder.decode(messages) is None
    with pytest.raises(Malformed):
        list(strictly(messages))
    assert decoder.decode([b"\x91\x07"]) == [(7,)]
