"""What may be asked for over whatever road: WebSocket, HTTP, the program itself.

In reading order:

* `asker.py`: What publishing and fetching need of whoever asks for it: a session, or who sends HTTP requests.
"""
