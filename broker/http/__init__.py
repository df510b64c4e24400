"""HTTP on the broker's port: health, figures, and topics for those who speak no WebSocket.

A connection whose first request wants no WebSocket comes here (`HttpService`). Its `Conversation` reads one request
after the other and finds the `Endpoint` in `endpoint_table`, which says who may ask, with which parameters, and what
may be answered. Nothing else in the broker knows of HTTP but `handshake`, which tells the two apart.

In reading order:

* `service.py`: All HTTP connections of one broker.
* `conversation.py`: One HTTP/1.1 connection: request after request, each bounded in size and time (RFC 9112).
* `endpoints.py`: What an endpoint is: where it is, who may ask, what for, and what may be answered. The description is
  complete: requests are judged by it, and a document for others can be made from it.
* `endpoint_table.py`: All endpoints.
* `request.py`: One request, as handlers see it.
* `answers.py`: What a request is answered with: a whole body, a stream, or an error, which always has one shape.
* `caller.py`: Who asks over HTTP, and what they may: the same judges as for sessions, asked anew with each request.
* `locality.py`: Where a request comes from: whether its sender is on this machine.
* `request_id.py`: What tells one HTTP request from all others, in answers and in the log.
* `health.py`: Whether the broker lives, and whether it wants more clients.
* `operating.py`: What operators look for, and what they do about it: topics, subscriptions, and sending a client away.
* `figures.py`: What the broker tells of itself: figures, who is connected, and who no longer is.
* `metrics.py`: The figures for Prometheus: read when it asks, from what is counted anyway. No label names a client or a
  topic.
* `history.py`: What a topic remembers: its last value, and its history.
* `publish.py`: Publishing: one message whose payload is the body, or a batch of them.
* `payloads.py`: Payloads in JSON and back: as a value where its encoding is one that JSON can say, else as ``{"$bin":
  base64}``.
* `sse_stream.py`: A topic, or a pattern, as a stream of Server-Sent Events that a browser reads without a library.
* `sse_events.py`: Server-Sent Events: envelopes of one subscription as text, and the id from which a reconnect goes on.
* `openapi.py`: The HTTP endpoints as OpenAPI 3.1, made of the table that requests are judged by.
* `schemas.py`: What answers and bodies look like, in JSON Schema 2020-12, which is that of OpenAPI 3.1.
* `session_in_memory.py`: A session for a client that speaks no WebSocket: the broker's own end of a connection in
  memory.
* `long_json.py`: Long JSON, cut into the items of its outermost array before any of it is parsed, in turns.
* `scraping.py`: The endpoint that Prometheus asks. What it needs is imported with the first request, and in a thread.
* `who.py`: Who may ask for what an endpoint has.
"""

from __future__ import annotations

from .service import HttpService as HttpService

__all__ = ["HttpService"]
