"""HTTP on the broker's port: health, figures, and topics for those who speak no WebSocket.

A connection whose first request wants no WebSocket comes here (`HttpService`). Its `Conversation` reads one request
after the other and finds the `Endpoint` in `table`, which says who may ask, with which parameters, and what may be
answered. Nothing else in the broker knows of HTTP but `handshake`, which tells the two apart.
"""

from __future__ import annotations

from .service import HttpService as HttpService

__all__ = ["HttpService"]
