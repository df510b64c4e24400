"""Running a fragment of a page: code with `await` at its top, beside a broker in memory and a client of it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
import trio

import fanwire
from fanwire.broker import Config, TopicRule
from fanwire.testing import broker_in_memory, client_of

from .pages import ADDRESS, Block

_SECONDS = 30.0
"""On the mock clock: then a fragment that goes on for ever is ended."""

_NAMES = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


async def run_fragment(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it, while prices are published on `stocks.*`; every statement of it must have been reached.

    It finds `fanwire`, `trio`, a `client`, its `broker`, which keeps history, and a `nursery`. Bodies of `except` need
    not be reached: they say what to do when something goes wrong.
    """
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    config = Config(rules=(TopicRule(pattern=">", history=1000), TopicRule(pattern="rooms.>", presence=True)))
    async with broker_in_memory(config) as broker, client_of(broker) as client, trio.open_nursery() as nursery:
        monkeypatch.setattr(trio, "open_tcp_stream", _in_place_of_tcp(broker))
        _publish_each(broker)  # so there are prices when the fragment begins
        nursery.start_soon(_publish_prices, broker)
        names = {"fanwire": fanwire, "trio": trio, "client": client, "broker": broker, "nursery": nursery}
        with _lines_reached(code) as reached, trio.move_on_after(_SECONDS):
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
            await trio.sleep(1)  # for what it has started
        nursery.cancel_scope.cancel()
    missed = {lines[0] for lines in _statements(block.text) if reached.isdisjoint(lines)}
    assert not missed, f"{block}: never reached: " + "; ".join(block.lines[line - 1].strip() for line in sorted(missed))


def _in_place_of_tcp(broker: fanwire.Broker) -> Any:
    async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
        assert f"{host}:{port}" == ADDRESS
        return await broker.open_stream()

    return open_tcp_stream


async def _publish_prices(broker: fanwire.Broker) -> None:
    while True:
        await trio.sleep(0.1)
        _publish_each(broker)


def _publish_each(broker: fanwire.Broker) -> None:
    for name in _NAMES:
        broker.publish(f"stocks.{name}", b"\x81\xa5price\xcb\x40\x67\xb0\x00\x00\x00\x00\x00", encoding=1)


@contextmanager
def _lines_reached(code: CodeType) -> Iterator[set[int]]:
    reached: set[int] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != code.co_filename:
            return None
        reached.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield reached
    finally:
        sys.settrace(before)


def _statements(text: str) -> list[range]:
    """The lines of each statement, without those of its body; but for statements within `except`.

    Of a head of several lines not every version of Python reports the first.
    """
    excused = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [
        _head(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and node.lineno not in excused
    ]


def _head(node: ast.stmt) -> range:
    body = getattr(node, "body", None)
    return range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)
