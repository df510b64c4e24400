"""`FrameSplitter`: what is taken out, what is passed on, what is refused, whatever the cuts."""

from __future__ import annotations

import pytest
from hypothesis import given

from fanwire.protocol.frames import (
    MAX_FRAGMENTS,
    MAX_PINGS,
    FrameSplitter,
    close_frame,
    close_payload,
    end_of_frame,
    frame_header,
    masked_frame,
)
from tests.peers.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, read_frames
from tests.property.frame_streams import LIMIT, arriving


def _split(splitter: FrameSplitter, pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Messages, and the bytes passed on."""
    messages: list[bytes] = []
    passed = bytearray()
    for piece in pieces:
        splitter.feed(piece)
        while more := splitter.take(messages):
            passed += more
        if splitter.fault or splitter.peer_closed:
            break
    return messages, bytes(passed)


def _splitter(limit: int = LIMIT, **options: bool | int) -> FrameSplitter:
    return FrameSplitter(client=False, max_message=limit, **options)  # type: ignore[arg-type]


@given(arriving(masked=True))
def test_cuts_do_not_matter(pieces: list[bytes]) -> None:
    """The same bytes, whole or in pieces, give the same messages, the same bytes passed on and the same refusal."""
    whole, cut = _splitter(), _splitter()

    expected = _split(whole, [b"".join(pieces)])

    assert _split(cut, pieces) == expected
    assert (cut.fault, cut.peer_closed, cut.unfinished) == (whole.fault, whole.peer_closed, whole.unfinished)


@pytest.mark.parametrize("first", [b"\xff", b"\x82", b"\x00"])
@pytest.mark.parametrize("before", [frame(PING, b"ping"), frame(BINARY, b"message"), b""])
def test_any_first_byte(before: bytes, first: bytes) -> None:
    """No byte at the beginning of a frame is taken for a whole message."""
    splitter = _splitter()

    messages, _ = _split(splitter, [before + first + b"\xff" * 19])

    assert messages == [b"message"] * (before == frame(BINARY, b"message"))


def test_order() -> None:
    """After a fragmented message everything is passed on: two roads could not keep the order."""
    fragmented = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b")
    whole = frame(BINARY, b"c")

    assert _split(_splitter(), [whole + fragmented + whole]) == ([b"c"], fragmented + whole)


def test_control_frames_in_between() -> None:
    """They are passed on, one at a time, and only after the messages that came before them."""
    splitter, messages = _splitter(), list[bytes]()
    ping = frame(PING, b"p")
    splitter.feed(frame(BINARY, b"a") + ping + frame(BINARY, b"b") + ping)

    assert splitter.take(messages) == ping
    assert messages == [b"a"]
    assert splitter.take(messages) == ping
    assert messages == [b"a", b"b"]
    assert splitter.take(messages) == b""


def test_after_the_peers_close() -> None:
    """Nothing that follows it is looked at."""
    splitter = _splitter()

    assert _split(splitter, [close(1000) + frame(BINARY, b"late") + b"\xff" * 50]) == ([], close(1000))
    assert splitter.peer_closed
    assert splitter.fault is None


def test_after_our_close() -> None:
    """Only the peer's close frame matters then."""
    splitter = _splitter()
    splitter.closing = True

    assert _split(splitter, [frame(BINARY, b"x") + frame(PING) + close(1000)]) == ([], close(1000))


@pytest.mark.parametrize(("size", "code"), [(LIMIT, None), (LIMIT + 1, 1009), (2**30, 1009), (2**63, 1002)])
def test_announced_size(size: int, code: int | None) -> None:
    """A length over the limit is refused at its header."""
    splitter = _splitter()

    _split(splitter, [frame(BINARY, announce=size)])

    assert (splitter.fault and splitter.fault.code) == code


@pytest.mark.parametrize(("fragments", "code"), [(8, None), (9, 1009)])
def test_fragments(fragments: int, code: int | None) -> None:
    """So is one fragment too many, empty or not."""
    splitter = _splitter(max_fragments=8)

    _split(splitter, [frame(BINARY, fin=False), *[frame(CONTINUATION, fin=False)] * (fragments - 1)])

    assert (splitter.fault and splitter.fault.code) == code


def test_text_where_it_is_spoken() -> None:
    """There it is passed on."""
    assert _split(_splitter(text=True), [frame(TEXT, b"{}")]) == ([], frame(TEXT, b"{}"))
    assert _split(_splitter(), [frame(TEXT, b"{}")]) == ([], b"")


@pytest.mark.parametrize(
    ("data", "unfinished"),
    [
        (frame(BINARY, b"abc"), False),
        (frame(BINARY, b"abc")[:-1], True),
        (frame(BINARY, b"abc")[:1], True),
        (frame(PING, b"abc")[:-1], True),
        (frame(BINARY, b"abc", fin=False), True),
        (frame(BINARY, b"abc", fin=False) + frame(PING), True),
        (frame(BINARY, b"abc", fin=False) + frame(CONTINUATION), False),
    ],
)
def test_unfinished(data: bytes, unfinished: bool) -> None:
    """It is known whether the peer owes the rest of something."""
    splitter = _splitter()

    _split(splitter, [data])

    assert splitter.unfinished is unfinished


def test_a_large_frame_byte_by_byte() -> None:
    """It is not copied at every byte: the work grows with its size, not with the square of it."""
    payload = b"x" * 300_000  # 45 GB would be copied
    splitter = _splitter(len(payload))

    messages, passed = _split(splitter, [bytes((each,)) for each in frame(BINARY, payload)])

    assert messages == [payload]
    assert not passed


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_what_we_write(size: int) -> None:
    """Frames of both sides are read back as they were meant."""
    payload = bytes(i % 251 for i in range(size))

    assert read_frames(frame_header(size) + payload) == ([(BINARY, payload, True)], b"")
    assert read_frames(masked_frame(payload, b"\x01\x02\x03\x04")) == ([(BINARY, payload, True)], b"")
    assert frame(BINARY, payload, masked=False) == frame_header(size) + payload


def test_close_reason() -> None:
    """A reason that is too long is cut between characters."""
    assert read_frames(close_frame(1008, "no")) == ([(CLOSE, b"\x03\xf0no", True)], b"")
    assert len(close_payload(1000, "ü" * 200)) == 124
    assert close_payload(1000, "ü" * 200)[2:].decode() == "ü" * 61


def test_end_of_frame() -> None:
    """For every position: the end of the frame that it lies in."""
    first, second = frame(BINARY, b"abc", masked=False), frame(BINARY, b"x" * 200, masked=False)
    ends = [end_of_frame(first + second, position) for position in range(len(first + second) + 1)]

    assert ends == [0, *[len(first)] * len(first), *[len(first + second)] * len(second)]


def test_of_pings_without_end_only_the_last_is_passed_on() -> None:
    """Each of the first; then of each read the last one, behind everything else that came in it."""
    splitter = _splitter()
    pings = [frame(PING, b"%d" % number) for number in range(3 * MAX_PINGS)]
    first, second = pings[: 2 * MAX_PINGS], pings[2 * MAX_PINGS :]

    messages, passed = _split(splitter, [b"".join(first) + frame(BINARY, b"m"), b"".join(second), frame(PING, b"one")])

    assert messages == [b"m"]
    assert passed == b"".join([*pings[:MAX_PINGS], first[-1], second[-1], frame(PING, b"one")])


def test_a_ping_that_was_kept_back_never_lands_inside_a_frame() -> None:
    """It goes out before a frame whose end has yet to come, and not at the end of the read, which is inside of it."""
    splitter = _splitter()
    begun = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b")  # from here on everything is passed on
    flood, whole = frame(PONG, b"x") * MAX_PINGS, frame(BINARY, b"y" * 100)

    _, passed = _split(splitter, [begun, flood, frame(PING, b"?") + whole[:50], whole[50:]])

    assert passed == begun + flood + frame(PING, b"?") + whole


def test_pongs_without_end_are_passed_on_to_a_client_only() -> None:
    """A client waits for certain ones; a broker asks for none of them."""
    for client, most in ((False, MAX_PINGS), (True, 1000)):
        pong = frame(PONG, b"?", masked=not client)
        splitter = FrameSplitter(client=client, max_message=LIMIT)

        assert _split(splitter, [pong * 1000]) == ([], pong * most)
        assert splitter.flooded is not client


def test_pings_beyond_the_last_word_are_not_passed_on() -> None:
    """Neither after a close frame nor after a fault: nothing may be answered any more."""
    flood = frame(PING, b"x") * (MAX_PINGS + 5)

    assert _split(_splitter(), [flood + close(1000)]) == ([], frame(PING, b"x") * MAX_PINGS + close(1000))
    assert _split(_splitter(), [flood + b"\xff" * 20]) == ([], frame(PING, b"x") * MAX_PINGS)


def test_empty_fragments_are_not_passed_on_but_count() -> None:
    """They add nothing to a message; the first and the last one say where it begins and ends."""
    first, middle, last = frame(BINARY, fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)
    some = frame(CONTINUATION, b"x", fin=False)

    assert _split(_splitter(), [first + middle * 3 + some + middle + last]) == ([], first + some + last)

    splitter = _splitter()
    assert _split(splitter, [first + middle * MAX_FRAGMENTS]) == ([], first)
    assert splitter.fault is not None
    assert splitter.fault.code == 1009
