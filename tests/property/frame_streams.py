"""Strategies: what a peer sends after its handshake, mostly legal, and the cuts in which it arrives."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from fanwire.protocol.frames import MAX_PINGS
from tests.peers.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame

LIMIT = 200
"""Bytes of a message that the tests allow: small, so that examples pass it."""

_payloads = st.binary(max_size=LIMIT)
_sizes = st.sampled_from((0, 1, 125, 126, 127, LIMIT))
_codes = st.sampled_from((0, 999, 1000, 1001, 1004, 1005, 1007, 1011, 1013, 1015, 2999, 3000, 4008, 4999, 5000))


@st.composite
def _run(draw: st.DrawFn, masked: bool) -> bytes:
    """Frames of one size, as a publisher sends them."""
    payload, key = draw(_payloads), draw(st.binary(min_size=4, max_size=4))
    return frame(BINARY, payload, masked=masked, key=key) * draw(st.integers(1, 5))


@st.composite
def _fragmented(draw: st.DrawFn, masked: bool, opcode: int) -> bytes:
    """One message in two or more fragments, control frames between them."""
    parts = draw(st.lists(st.binary(max_size=80), min_size=2, max_size=4))
    out = frame(opcode, parts[0], fin=False, masked=masked)
    for i, part in enumerate(parts[1:], 2):
        if draw(st.booleans()):
            out += draw(_control(masked))
        out += frame(CONTINUATION, part, fin=i == len(parts), masked=masked)
    return out


def _control(masked: bool) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda opcode, payload: frame(opcode, payload, masked=masked),
        st.sampled_from((PING, PONG)),
        st.binary(max_size=125),
    )


def _close(masked: bool) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda code, reason: close(code, reason if code is not None else b"", masked=masked),
        st.none() | _codes,
        st.sampled_from((b"", b"bye", "für immer".encode(), b"\xff", b"\xe2\x82")),
    )


def _odd(masked: bool) -> st.SearchStrategy[bytes]:
    """A frame in which anything may be wrong."""
    return st.builds(
        lambda opcode, size, fin, rsv, flip, width, announce: frame(
            opcode,
            b"o" * size,
            fin=fin,
            rsv=rsv,
            masked=masked != flip,
            width=width if size < 126 or width else None,
            announce=announce,
        ),
        st.integers(0, 15),
        _sizes,
        st.booleans(),
        st.sampled_from((0, 0, 0, 1, 2, 4)),
        st.sampled_from((False, False, False, True)),
        st.sampled_from((None, None, 2, 8)),
        st.none(),
    ) | st.sampled_from((LIMIT + 1, 2**16, 2**30, 2**62, 2**63)).map(
        lambda size: frame(BINARY, b"x" * (LIMIT + 1), announce=size, masked=masked)
    )


@st.composite
def arriving(draw: st.DrawFn, *, masked: bool) -> list[bytes]:
    """Bytes of a peer, in the pieces in which they are read. ``masked``: a client's."""
    legal = _run(masked) | _control(masked) | _run(masked)
    late = _fragmented(masked, BINARY) | legal | _run(masked)
    wrong = st.one_of(
        _fragmented(masked, TEXT),
        st.just(frame(TEXT, b"text", masked=masked)),
        _close(masked),
        _odd(masked),
        st.binary(max_size=40),
        st.just(frame(BINARY, b"x" * (LIMIT + 1), masked=masked)),
    )
    parts = draw(st.lists(legal, max_size=6))
    parts += draw(st.lists(late, max_size=6))
    parts += draw(st.lists(wrong, max_size=2))
    parts += draw(st.lists(late | wrong, max_size=3))
    data = b"".join(parts)
    data = data[: draw(st.sampled_from((len(data), len(data), len(data) - 1, len(data) - 7)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    if draw(st.integers(0, 9)) == 0:
        cuts = list(range(len(data)))
    edges = [0, *cuts, len(data)]
    return [piece for start, stop in pairwise(edges) if (piece := data[start:stop])]


@st.composite
def flooding(draw: st.DrawFn) -> list[bytes]:
    """Legal bytes of a client with whole and fragmented messages, and many numbered pings and pongs anywhere between.

    Cut anywhere; the cuts are few, so that many pings come in one read.
    """
    out, number = b"", 0
    for _ in range(draw(st.integers(1, 12))):
        for _ in range(draw(st.integers(0, 2 * MAX_PINGS))):
            number += 1
            out += frame(draw(st.sampled_from((PING, PING, PONG))), b"%d" % number)
        size = draw(st.integers(0, LIMIT))
        if draw(st.booleans()):
            out += frame(BINARY, b"w" * size)
            continue
        part = size // 3
        out += frame(BINARY, b"f" * part, fin=False)
        for last in (False, True):
            for _ in range(draw(st.integers(0, 3))):
                number += 1
                out += frame(PING, b"%d" % number)
            out += frame(CONTINUATION, b"c" * part, fin=last)
    cuts = sorted(draw(st.lists(st.integers(0, len(out)), max_size=8)))
    return [piece for start, stop in pairwise([0, *cuts, len(out)]) if (piece := out[start:stop])]
