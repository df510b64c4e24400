"""What is counted and written down.

In reading order:

* `statistics.py`: What a broker has counted: plain integers on the hot path, a frozen copy for whoever asks.
* `log.py`: The broker's log: structured events through the standard library's logger ``fanwire.broker``.
* `bounded_log.py`: Lines of the log that somebody outside can cause, and as often as he likes: some of each kind, then
  their number.
* `loop_lag.py`: How late the event loop is: one timer that looks ten times a second when it was really called.
* `closed.py`: The last connections that ended, and why: for whoever asks what became of a client.
* `text.py`: Texts of clients, as others may see them.
"""
