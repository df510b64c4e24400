"""From a value to a PUBLISH on its way.

In reading order:

* `encoder.py`: Encoding publishes: `[4, id, topic, payload, encoding?, options?]`, most of which is the same every
  time.
* `pipeline.py`: Acknowledged publishes without waiting for each: a window of them is on the way.
* `result.py`: What the broker says about a publish.
"""
