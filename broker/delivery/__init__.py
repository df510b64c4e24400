"""Gather, write through, wait in line; and what becomes of who is slow.

In reading order:

* `subscription.py`: One connection on one route: what it was granted, what waits for it, what it has lost.
* `losses.py`: What one subscription has lost at one place of its stream, until it can be told: LOST (protocol.md,
  Delivery).
* `queue.py`: The line: what waits for one connection's socket, in the order in which it came, in a bounded trio
  channel.
* `policies.py`: What becomes of a chunk when a subscription's queue is full: one function for each ``on_slow``.
* `outbox.py`: One subscriber connection's way out: gather, write through, else wait in line.
* `fanout.py`: The sweep: what was published goes to who subscribed, without waiting for anybody.
* `total_pending.py`: `max_total_pending_bytes`: what waits for all connections together.
* `slow_events.py`: Episodes of slowness: from more than 75 % of one of the four measures to less than 50 % of all, or
  to the end. Counted, logged once, and published on ``$sys.slow`` (docs/operations.md).
* `hands.py`: What one member of a queue group has been given and has not finished, as far as its client says (BACKLOG,
  ``taken``).
* `routes.py`: Routes, topics and the registry, as they are here: with outboxes and subscriptions in them.
"""
