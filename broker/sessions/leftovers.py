"""What trio-websocket and wsproto leave behind when a connection ends."""

from __future__ import annotations

import trio_websocket


def end_parser(connection: trio_websocket.WebSocketConnection) -> None:
    """Free 1 KiB that otherwise only a full garbage collection does: wsproto's parser is a generator that holds itself.

    Best effort, since the parser is private to wsproto. Call when no task uses ``connection`` any more.
    """
    try:
        parser = connection._wsproto.connection
        if parser is not None:
            del parser._proto._parse_more  # closing it does not do: CPython 3.13 keeps the frame of one that never ran
    except AttributeError:
        pass  # another version
