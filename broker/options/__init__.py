"""What a SUBSCRIBE may ask for beyond what is published from now on.

In reading order:

* `throttle.py`: ``max_rate``: of each key at most so many messages a second, the newest held until it may go.
* `queue_groups.py`: Queue groups: each message goes to one member of the group, the one with the least to do.
* `group_watch.py`: What all queue groups share: a bound on what they remember, a clock for members that stall, and news
  of losses.
* `replay.py`: Beginning a subscription with what its topics remember: snapshot, replay, and then live without a seam.
* `last_published.py`: When something was last published on each topic of a route, for those who want to be told of
  silence.
* `heartbeats.py`: ``heartbeat``: QUIET for each topic on which nothing was published for that long (docs/protocol.md,
  Silence).
"""
