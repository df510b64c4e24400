"""From a MESSAGE to the handler that takes it.

In reading order:

* `granted.py`: On which terms the broker serves a subscription: what was asked for, what it granted, and its warning.
* `slowness.py`: That the broker found this client too slow: its facts, in words that say what to do.
* `position.py`: How far a feed has come in its topics' histories, and with what it begins, or goes on after a break.
* `marks.py`: Marks: they wait in a subscription's buffer among the messages, where others are missing, or nothing came.
* `buffer.py`: What waits in this process for one subscription's handler: bounded in messages and in bytes.
* `buffer_options.py`: How much may wait for one subscription, what becomes of the rest, and how old what waits is.
* `silence.py`: Silence that the broker cannot tell of, because it is the connection that is silent: the client's own
  clock.
* `subscription.py`: A subscription: a bounded buffer in this process, and the ways to take messages out of it.
* `wire_subscription.py`: One pattern on the wire, and this program's subscriptions to it.
* `inbox.py`: Where the replies to this client's requests come in: one feed for all of them, on one connection.
* `queue_groups.py`: Queue groups: this client's share of the work, handed out among its own subscriptions.
* `wire_subscriptions.py`: All feeds of a client, by pattern and by route, and the requests that begin and end them.
* `weight.py`: What a waiting message costs in memory: its payload, its Python objects, and what stands beside the
  payload.
* `hints.py`: What the log says about patterns that probably do not mean what their author thinks.
"""
