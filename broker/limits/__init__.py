"""How much anybody may have, or do in a time.

In reading order:

* `token_bucket.py`: Token buckets: so many a second on average, and a burst of so many at once.
* `parties.py`: What is remembered of each address, or user, while it is connected and as long afterwards as that
  matters.
* `addresses.py`: Where connections come from: how many of one address, how often, how many tokens it has guessed at.
* `users.py`: Users, where the broker asks who one is: how many connections of one, and what they may publish together.
* `publish_meter.py`: How fast one connection publishes, and what becomes of that when it is more than it may.
* `refusals.py`: What is counted, logged and said when a limit refuses something.
"""
