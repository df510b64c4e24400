"""A WebSocket client that everybody has at hand talks to the broker: websocat, with msgpack through a pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import pytest

from fanwire.protocol import EnvelopeType, Publish, Subscribe, encode
from tests.integration.cli_programs import DEADLINE_S, serving

WEBSOCAT = shutil.which("websocat", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

pytestmark = pytest.mark.skipif(WEBSOCAT is None, reason="websocat is not installed here")

_AUTH = """
[auth]
[[auth.tokens]]
user = "me"
roles = ["everything"]
sha256 = "{hash}"
[[auth.roles]]
name = "everything"
publish = [">"]
subscribe = [">"]
"""


class Pipe:
    """websocat, running."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._unpacker = msgpack.Unpacker()

    def say(self, *envelopes: Any) -> None:
        """One WebSocket message."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(map(encode, envelopes)))
        self.process.stdin.flush()

    def hear(self, kind: EnvelopeType) -> list[Any]:
        """The next envelope, which is of this type."""
        assert self.process.stdout is not None
        while (envelope := next(self._unpacker, None)) is None:
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "websocat ended"
            self._unpacker.feed(data)
        assert envelope[0] == kind, envelope
        return list(envelope)


@contextmanager
def websocat(url: str, token: str) -> Iterator[Pipe]:
    """Connected, until the body ends."""
    assert WEBSOCAT is not None
    header = f"Authorization: Bearer {token}"
    command = [WEBSOCAT, "--binary", "--exit-on-eof", "--protocol", "fanwire.v1", url, "--header", header]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Pipe(process)
        finally:
            process.kill()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a broker that wants a token."""
    file = tmp_path / "auth.toml"
    file.write_text(_AUTH.format(hash=sha256(b"fw_me").hexdigest()))
    with serving("--auth-file", str(file)) as (_, url):
        yield url


def test_it_subscribes_and_publishes(url: str) -> None:
    """And ends well when its input does."""
    with websocat(url, "fw_me") as pipe:
        welcome = pipe.hear(EnvelopeType.WELCOME)
        pipe.say(Subscribe(1, "rooms.*"))
        route = pipe.hear(EnvelopeType.OK)[2]["route"]
        pipe.say(Publish(0, "rooms.kitchen", b"the soup is ready"))
        message = pipe.hear(EnvelopeType.MESSAGE)
        assert pipe.process.stdin is not None
        pipe.process.stdin.close()
        status = pipe.process.wait(DEADLINE_S)

    assert welcome[1]["user"] == "me"
    assert (message[1], message[2], message[5]) == (route, "rooms.kitchen", b"the soup is ready")
    assert status == 0


def test_it_is_told_when_the_token_is_bad(url: str) -> None:
    """By the HTTP status, on standard error."""
    with websocat(url, "fw_guess") as pipe:
        told, complaint = pipe.process.communicate(timeout=DEADLINE_S)

    assert told == b""
    assert b"401" in complaint
    assert pipe.process.returncode != 0
