"""What topics remember.

In reading order:

* `interface.py`: What topics remember: their last value, and their history by offset (docs/protocol.md, Delivery). The
  interface.
* `memory.py`: A `Store` that keeps all in memory.
* `expiry.py`: History that is only kept for some time: forgotten within a second after that, a portion at a time.
"""
