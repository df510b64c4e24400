"""Who gets what: patterns, routes and topics. Knows neither sockets nor sessions.

In reading order:

* `pattern_tree.py`: The tree of wildcard patterns: which of them match a topic, at a cost that does not grow with those
  that don't.
* `registry.py`: The topic registry: who gets what is published. A pure data structure, no socket, no await.
* `deferred_free.py`: Large dicts that nobody needs any more, freed a little at a time.
* `routes.py`: Routes: one number, one encoding for everybody who subscribed to the same pattern (protocol.md, Routes).
* `echo.py`: ``echo: false``: what a connection itself published is not sent to it.
* `chunks.py`: What is known of encoded messages on their way: how many, of which topic, since when.
* `takers.py`: What a route needs of those who get what is published, and of those who stand before them.
"""
