"""What goes out, and who waits for the answer.

In reading order:

* `outgoing.py`: What waits to be sent, and the task that sends it.
* `answers.py`: Requests that wait for their answer.
* `deadlines.py`: One timer for all of a client's requests: a cancel scope for each would take longer than all else that
  is done here for a request and its reply.
"""
