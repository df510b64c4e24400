"""One client's WebSocket connection.

In reading order:

* `disconnects.py`: How a connection ends when the broker ends it: which close code, and what the client is told before.
* `hub.py`: What all sessions of one broker share: registry, fanout, watchdog, counters, and the list of sessions.
* `ingress.py`: What comes in from one client: publishes over the fast road, everything else over `handlers`, in the
  order sent.
* `session.py`: One client's connection, from its first byte to its last.
* `handlers.py`: What a client asks for, envelope by envelope: the slow road of dispatch, one handler each.
* `authentication.py`: What a session may do: who it is, from the handshake or HELLO on, and what that allows.
* `leftovers.py`: What trio-websocket and wsproto leave behind when a connection ends.
"""
