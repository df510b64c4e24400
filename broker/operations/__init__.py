"""What operators look for, and do.

In reading order:

* `reports.py`: What the broker tells of itself while somebody listens: ``$sys.stats`` and ``$sys.connections``.
* `listings.py`: Which topics there are, and who is subscribed: for operators who look for something.
* `kick.py`: Sending one client away because an operator wants it.
* `drain.py`: How a broker sends its clients away: in small groups, so that they do not all come to another one at once.
* `reload.py`: Other settings while the broker runs: all at once, or none of them.
* `foreign_patterns.py`: Patterns in the settings that are written as for MQTT or AMQP, and so match nothing that their
  author thinks of.
"""
