"""One connection after the other, and what comes in on it.

In reading order:

* `decoding.py`: What the broker sent, as plain tuples: no object of ours per envelope on the hot road.
* `receiver.py`: What the broker says, handed to whom it concerns: synchronously, from the task that reads.
* `connection.py`: One WebSocket life: opened, used until something ends it, closed.
* `backoff.py`: When to try again.
* `token_renewal.py`: Tokens: had when a connection begins, and renewed before they expire.
* `link.py`: Keeping a connection up: opening it, noticing its end, waiting, opening the next one.
* `outages.py`: What the log says about an outage: one line when the connection is lost, one when there is one again,
  and one about what may be missing. A connection that breaks again and again has its lines every `QUIET_S` seconds.
* `refusal.py`: A handshake that was answered with something else than 101: by the broker, or by a proxy before it.
* `unreachable.py`: Why a broker cannot be reached, in one line that says what to do; and what was raised, for programs.
"""
