"""One request to a broker's HTTP endpoints, for the commands of operators."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import click
import h11
import trio

from fanwire.broker.http.endpoints import NOTHING_SERVED
from fanwire.client.cli.options import environment_token
from fanwire.client.config import Options
from fanwire.client.connecting.connection import open_stream
from fanwire.client.url import Address, parse_url

PATIENCE_S = 15.0
"""For the whole of it."""

# The longest answer that is read: a thousand connections have half a megabyte.
_MOST = 16 * 1024 * 1024


async def ask(url: str, method: str, path: str, query: Mapping[str, Any] | None = None) -> Any:
    """Ask the broker at a WebSocket URL, with the token of FANWIRE_TOKEN.

    Args:
        url: As commands have it; ``wss`` means ``https``.
        method: Of the request.
        path: With its percent signs.
        query: Parameters; those that are None are left out.

    Returns:
        What the answer holds.

    Raises:
        ConnectionFailed: No broker.
        click.ClickException: It refuses.
    """
    address = parse_url(url)
    fields = urlencode({name: value for name, value in (query or {}).items() if value is not None})
    target = f"{path}?{fields}" if fields else path
    try:
        with trio.fail_after(PATIENCE_S):
            async with await open_stream(address, Options()) as stream:
                status, body = await _converse(stream, address, method, target)
    except trio.TooSlowError:
        raise click.ClickException(f"{address} did not answer within {PATIENCE_S:g} s") from None
    except trio.BrokenResourceError as error:
        raise click.ClickException(f"the connection to {address} broke: {error}") from None
    except h11.RemoteProtocolError as error:
        raise click.ClickException(f"{address} does not speak HTTP as Fanwire does: {error}") from None
    return _content(address, status, body)


async def _converse(stream: trio.abc.Stream, address: Address, method: str, target: str) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", address.host_header), ("Connection", "close"), ("User-Agent", "fanwire")]
    if (token := environment_token()) is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    request = connection.send(h11.Request(method=method, target=target, headers=headers))
    end = connection.send(h11.EndOfMessage())
    await stream.send_all((request or b"") + (end or b""))
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MOST:
                raise click.ClickException(f"the answer of {address} is longer than {_MOST} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)


def _content(address: Address, status: int, body: bytes) -> Any:
    try:
        content = json.loads(body)
    except ValueError:
        raise click.ClickException(f"{address} answered {status}, and nothing that Fanwire would say") from None
    if status == HTTPStatus.OK:
        return content
    error = content.get("error") if isinstance(content, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    if status == HTTPStatus.NOT_FOUND and text == NOTHING_SERVED:
        text = f"{text}; if operators have a port of their own (admin_port), say it with --url"
    if status == HTTPStatus.UNAUTHORIZED:
        text = f"{text}; set FANWIRE_TOKEN to an operator's token"
    raise click.ClickException(f"{address}: {text or HTTPStatus(status).phrase}")
