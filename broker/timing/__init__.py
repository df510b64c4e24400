"""Clocks, and how long one task may work.

In reading order:

* `turn.py`: How long one task may work before the others get their turn.
* `timers.py`: One task that looks after every connection's clock: keepalive pings and messages that are never finished.
* `clock.py`: The wall clock: the one place that reads it.
"""
