"""The cases 1 to 7 and 10 of the Autobahn test suite 0.8.2, as far as they apply to an endpoint that speaks binary.

The suite wants an echo: a peer subscribed to what it publishes gets one. Where the suite sends text and expects it
back, here the same frames carry binary (as its cases of section 1.2 do); text as such is refused with 1003. The UTF-8
of section 6 then only matters in close reasons (7.5). The numbers in the names are the suite's.
"""

from __future__ import annotations

import attrs
import pytest
from trio.testing import MockClock

from fanwire.broker import Broker, Config
from fanwire.protocol import Message, Publish, Subscribe, decode_from_broker, encode
from tests.peers.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame
from tests.peers.raw import converse

_BYE = close(1000)


def _envelope(payload: bytes = b"fragment1fragment2") -> bytes:
    return encode(Publish(0, "echo", payload))


def _publish(payload: bytes) -> bytes:
    return frame(BINARY, _envelope(payload))


def _chopped(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[start : start + size] for start in range(0, len(data), size))


_FIRST, _SECOND = _envelope()[:10], _envelope()[10:]
_PARTS = (frame(BINARY, _FIRST, fin=False), frame(CONTINUATION, _SECOND))
_ECHOED = (b"fragment1fragment2",)


@attrs.frozen
class Case:
    """What is sent, piece by piece, and what comes of it."""

    number: str
    parts: tuple[bytes, ...]
    code: int | None = 1000
    echoes: tuple[bytes, ...] = ()
    pongs: tuple[bytes, ...] = ()
    strict: bool = True
    """Whether the echo must come before the close frame; the suite calls it "non-strict" where it need not."""


_SIZES = (0, 125, 126, 127, 128, 65535, 65536)
_BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
_GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
_TEN_PINGS = tuple(b"payload-%d" % i for i in range(10))

_CASES = [
    *(Case(f"1.1.{i}", (frame(TEXT, b"*" * size),), 1003) for i, size in enumerate(_SIZES, 1)),
    *(Case(f"1.2.{i}", (_publish(b"\xfe" * size), _BYE), 1000, (b"\xfe" * size,)) for i, size in enumerate(_SIZES, 1)),
    Case("1.2.8", (*_chopped(_publish(b"\xfe" * 65536), 997), _BYE), 1000, (b"\xfe" * 65536,)),
    Case("2.1", (frame(PING), _BYE), pongs=(b"",)),
    Case("2.2", (frame(PING, b"Hello, world!"), _BYE), pongs=(b"Hello, world!",)),
    Case("2.3", (frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), _BYE), pongs=(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",)),
    Case("2.4", (frame(PING, b"\xfe" * 125), _BYE), pongs=(b"\xfe" * 125,)),
    Case("2.5", (frame(PING, b"\xfe" * 126),), 1002),
    Case("2.6", (*_chopped(frame(PING, b"\xfe" * 125), 1), _BYE), pongs=(b"\xfe" * 125,)),
    Case("2.7", (frame(PONG), _BYE)),
    Case("2.8", (frame(PONG, b"unsolicited pong payload"), _BYE)),
    Case("2.9", (frame(PONG, b"unsolicited"), frame(PING, b"ping payload"), _BYE), pongs=(b"ping payload",)),
    Case("2.10", (*(frame(PING, each) for each in _TEN_PINGS), _BYE), pongs=_TEN_PINGS),
    Case("2.11", (*_chopped(b"".join(frame(PING, each) for each in _TEN_PINGS), 1), _BYE), pongs=_TEN_PINGS),
    Case("3.1", (frame(BINARY, _envelope(), rsv=1),), 1002),
    Case("3.2", (_publish(b"x"), frame(BINARY, _envelope(), rsv=2), frame(PING)), 1002, (b"x",)),
    Case("3.3", (_publish(b"x") + frame(BINARY, _envelope(), rsv=3) + frame(PING),), 1002, (b"x",)),
    Case("3.4", (*_chopped(_publish(b"x") + frame(BINARY, _envelope(), rsv=4), 1),), 1002, (b"x",)),
    Case("3.5", (frame(BINARY, b"\x00\xff", rsv=5),), 1002),
    Case("3.6", (frame(PING, b"x", rsv=6),), 1002),
    Case("3.7", (frame(CLOSE, rsv=7),), 1002),
    *(Case(f"4.1.{i}", (_publish(b"x"), frame(i + 2, b"y"), frame(PING)), 1002, (b"x",)) for i in range(1, 6)),
    *(Case(f"4.2.{i}", (_publish(b"x") + frame(i + 10, b"y") + frame(PING),), 1002, (b"x",)) for i in range(1, 6)),
    Case("5.1", (frame(PING, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")), 1002),
    Case("5.2", (frame(PONG, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")), 1002),
    Case("5.3", (*_PARTS, _BYE), 1000, _ECHOED),
    Case("5.4", (b"".join(_PARTS), _BYE), 1000, _ECHOED),
    Case("5.5", (*_chopped(b"".join(_PARTS), 1), _BYE), 1000, _ECHOED),
    Case("5.6", (_PARTS[0], frame(PING, b"ping"), _PARTS[1], _BYE), 1000, _ECHOED, (b"ping",)),
    Case("5.7", (_PARTS[0] + frame(PING, b"ping") + _PARTS[1], _BYE), 1000, _ECHOED, (b"ping",)),
    Case("5.8", (*_chopped(_PARTS[0] + frame(PING, b"ping") + _PARTS[1], 1), _BYE), 1000, _ECHOED, (b"ping",)),
    Case("5.9", (frame(CONTINUATION, b"no"), _publish(b"x")), 1002),
    Case("5.10", (frame(CONTINUATION, b"no") + _publish(b"x"),), 1002),
    Case("5.11", (*_chopped(frame(CONTINUATION, b"no") + _publish(b"x"), 1),), 1002),
    Case("5.12", (frame(CONTINUATION, b"no", fin=False), _publish(b"x")), 1002),
    Case("5.15", (*_PARTS, frame(CONTINUATION, b"no", fin=False), _publish(b"x")), 1002, _ECHOED, strict=False),
    Case("5.18", (_PARTS[0], frame(BINARY, _SECOND)), 1002),
    Case(
        "5.19",
        (
            frame(BINARY, _FIRST[:4], fin=False) + frame(CONTINUATION, _FIRST[4:], fin=False) + frame(PING, b"1"),
            frame(CONTINUATION, _SECOND[:5], fin=False) + frame(PING, b"2") + frame(CONTINUATION, _SECOND[5:]),
            _BYE,
        ),
        1000,
        _ECHOED,
        (b"1", b"2"),
    ),
    Case("6.1.2", (frame(BINARY, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), _BYE)),
    Case(
        "6.1.3",
        (frame(BINARY, fin=False), frame(CONTINUATION, _envelope(), fin=False), frame(CONTINUATION), _BYE),
        1000,
        _ECHOED,
    ),
    Case("6.2.1", (frame(TEXT, "Hello-µ@ßöäüàá-UTF-8!!".encode()),), 1003),
    Case("6.3.1", (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),), 1003),
    Case("7.1.1", (_publish(b"x"), _BYE), 1000, (b"x",)),
    Case("7.1.2", (_BYE, _BYE)),
    Case("7.1.3", (_BYE, frame(PING))),
    Case("7.1.4", (_BYE, _publish(b"late"))),
    Case("7.1.5", (_PARTS[0], _BYE, _PARTS[1])),
    Case("7.1.6", (_publish(b"x" * 262144) + _BYE + frame(PING),), 1000, (b"x" * 262144,)),
    Case("7.3.1", (frame(CLOSE),), 1005),
    Case("7.3.2", (frame(CLOSE, b"a"),), 1002),
    Case("7.3.3", (close(1000),)),
    Case("7.3.4", (close(1000, b"Hello World!"),)),
    Case("7.3.5", (close(1000, b"*" * 123),)),
    Case("7.3.6", (close(1000, b"*" * 124),), 1002),
    Case("7.5.1", (close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),), 1007),
    *(Case(f"7.7.{i}", (close(code),), code) for i, code in enumerate(_GOOD_CODES, 1)),
    *(Case(f"7.9.{i}", (close(code),), 1002) for i, code in enumerate(_BAD_CODES, 1)),
    Case("7.13.1", (close(5000),), 1002),
    Case("7.13.2", (close(65535),), 1002),
    Case(
        "10.1.1",
        (
            frame(BINARY, _envelope(b"*" * 65536)[:1300], fin=False),
            *(frame(CONTINUATION, each, fin=False) for each in _chopped(_envelope(b"*" * 65536)[1300:], 1300)),
            frame(CONTINUATION),
            _BYE,
        ),
        1000,
        (b"*" * 65536,),
    ),
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.number)
async def test_case(case: Case, autojump_clock: MockClock) -> None:
    """What is published comes back, pings are answered in order, and the connection ends with the right code."""
    async with Broker(Config(listen=False)).serving() as broker:
        subscribe = frame(BINARY, encode(Subscribe(1, "echo")))

        heard = await converse(await broker.open_stream(), (subscribe, *case.parts))

    echoes = [
        envelope.payload
        for each in heard.frames
        if each.opcode == BINARY
        for envelope in decode_from_broker(each.payload)
        if isinstance(envelope, Message)
    ]
    assert heard.close_code == case.code
    assert echoes == list(case.echoes) or not (echoes or case.strict)
    assert [each.payload for each in heard.frames if each.opcode == PONG] == list(case.pongs)
