"""What else may be asked for or watched: history, presence, demand.

In reading order:

* `history.py`: What the broker remembers of a topic, fetched without subscribing to it.
* `presence.py`: Who is subscribed to what: asked for once, or followed.
* `demand.py`: Which patterns anybody is subscribed to, for publishers who would rather not work for nobody.
"""
