"""From a listening socket to a peer that speaks HTTP.

In reading order:

* `listeners.py`: All that a broker listens on: TCP, a Unix socket, both, or nothing.
* `unix_socket.py`: A Unix socket to listen on: made, taken over from a broker that is gone, and removed.
* `exposure.py`: A broker that asks nobody who they are is not opened to the network by mistake.
* `accept.py`: The accept loop: ours, because with trio-websocket's `serve` one hostile peer can end the whole server.
* `certificate_expiry.py`: The end of the broker's own certificate is told in time.
* `proxy_protocol.py`: The PROXY protocol, version 2: what a proxy that only passes bytes on says before them of whom
  they are from.
* `peer.py`: Who is at the other end of a connection, as far as the network knows.
* `remote.py`: Where a connection comes from, for the log.
* `arrival.py`: From an accepted socket to a stream on which HTTP is spoken, and to who is at its other end.
* `admission.py`: Who is let in: judged when a connection is accepted, and bounded until it has said who it is.
* `handshake.py`: The HTTP request that opens a connection (RFC 6455 section 4.2.1), checked before trio-websocket sees
  any of it.
* `origin_check.py`: Whether a web page may be heard, by where it comes from; and what its browser is told (Fetch,
  section 3.2).
"""
