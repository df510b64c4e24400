"""Who is subscribed, and what is wanted, told to others.

In reading order:

* `members.py`: Who is subscribed to what: a table that can be read page by page while it changes. Pure data, no clock.
* `presence.py`: Presence: who is subscribed, for whoever asks and whoever watches (docs/protocol.md, Presence).
* `demand.py`: Which patterns somebody is subscribed to, told on ``$sys.demand``: so a publisher need not do what nobody
  wants.
"""
