"""Who gets what: patterns, routes and topics. Knows neither sockets nor sessions.

In reading order:

* `pattern_tree.py`: The tree of wildcard patterns: which of them match a topic, at a cost that does not grow with those
  that don't.
* `registry.py`: The topic registry: who gets what is published. A pure data structure, no socket, no await.
* `deferred_free.py`: Large dicts that nobody needs any more, freed a little at a time.
* `routes.py`: Routes: one number, one encoding for everybody who subscribed to the same pattern (protocol.md, Routes).
* `echo.py`: ``echo: false``: what a connection itself published is not sent to it.
* `inbox.py`: Inboxes: where the replies to a session's requests go (docs/protocol.md, Requests and replies).
* `watching.py`: Patterns of those who only watch: ``$presence.`` and a pattern P stands for who is subscribed to what
  overlaps P.
* `own_topics.py`: The topics on which the broker itself publishes. Nobody else can, and nothing may keep the broker
  from doing so.
"""
