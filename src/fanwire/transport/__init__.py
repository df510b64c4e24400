"""The one trio stream that broker and client share: the fast road under trio-websocket.

`framestream` owns the socket on both sides; `writers` knows how to write without waiting to each kind of stream;
`memory` is a bounded in-memory pipe, for brokers without a port and for tests on a mock clock.
"""

from __future__ import annotations

from .framestream import FrameStream as FrameStream
from .memory import MemoryStream as MemoryStream
from .memory import memory_stream_pair as memory_stream_pair
from .writers import buffer_little as buffer_little
from .writers import unacknowledged as unacknowledged
