"""All HTTP connections of one broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..network.peer import Peer, peer_of
from ..settings.networks import proxies_of
from .conversation import Conversation
from .endpoint_table import ENDPOINTS, FOR_CLIENTS

if TYPE_CHECKING:
    from ..limits.addresses import Address
    from ..sessions.hub import Hub
    from .endpoints import Endpoint


class HttpService:
    """One for each broker."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._conversations: set[Conversation] = set()

    @property
    def connections(self) -> int:
        """How many there are, without those that a session is attached to: they count against ``max_connections``."""
        return len(self._conversations)

    async def serve(
        self,
        stream: trio.abc.Stream,
        received: bytes = b"",
        address: Address | None = None,
        endpoints: tuple[Endpoint, ...] | None = None,
        *,
        admin: bool = False,
        peer: Peer | None = None,
    ) -> None:
        """Serve one connection to its end. Whatever happens, only that ends; the caller closes the stream.

        Args:
            stream: Where requests come from.
            received: What has come already.
            address: Where it comes from, if something is limited there.
            endpoints: What is served there; None: what there is for it.
            admin: Whether it came to the operators' own port.
            peer: Who is at the other end; None: whom the stream leads to.
        """
        if endpoints is None:
            endpoints = ENDPOINTS if admin or self._hub.config.admin_port is None else FOR_CLIENTS
        peer = peer or peer_of(stream, proxies_of(self._hub.config.trusted_proxies))
        conversation = Conversation(
            self._hub, stream, received, address, endpoints, peer,
            full=self._hub.full, admin=admin, on_hand_over=self._conversations.discard,
        )  # fmt: skip
        self._conversations.add(conversation)
        try:
            await conversation.run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer is gone
        except* Exception as group:
            self._hub.repeats.say(conversation.caller, "error", "connection failed", exc_info=group)
        finally:
            self._conversations.discard(conversation)

    def drain(self) -> None:
        """Nobody is kept waiting for another request; what is under way is answered."""
        for conversation in list(self._conversations):
            conversation.drain()
