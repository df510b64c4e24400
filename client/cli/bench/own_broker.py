"""A broker for one benchmark, in a process of its own."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

import click
import trio

_READY = "listening on "


@asynccontextmanager
async def own_broker() -> AsyncIterator[str]:
    """Run `fanwire serve` on any free port while the body runs.

    Yields:
        Its URL.

    Raises:
        click.ClickException: it did not start.
    """
    command = [sys.executable, "-m", "fanwire", "serve", "--port", "0", "--log-level", "warning"]
    process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
    try:
        yield await _url(process)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(10):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _url(process: trio.Process) -> str:
    assert process.stdout is not None
    heard = b""
    async for chunk in process.stdout:
        heard += bytes(chunk)
        if heard.endswith(b"\n"):
            return heard.decode().removeprefix(_READY).split()[0]
    raise click.ClickException("the benchmark's own broker did not start: see above, or give one with --url")
