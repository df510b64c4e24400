"""Requests and replies.

In reading order:

* `requester.py`: Sending requests: each goes out on the connection whose inbox awaits its replies, or not at all.
* `replies.py`: Asking: a request, and the replies to it as they come.
* `service.py`: Answering: requests as they come, each with the way back to who asked.
"""
