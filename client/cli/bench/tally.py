"""Honest counting: what of a publisher's numbered messages came, what did not, what came again."""


class Tally:
    """One subscriber's count of one publisher's messages, which are numbered 0, 1, 2 … and come in that order.

    Every number from 0 to the last one sent is received, or it is lost; a number that is not above the one before it
    came again, or too late: the protocol allows neither.
    """

    __slots__ = ("again", "received", "upcoming")

    def __init__(self) -> None:
        self.received = 0
        """Messages that came in their order."""
        self.again = 0
        """Messages that came twice, or behind a later one."""
        self.upcoming = 0
        """The number that is expected next."""

    def take(self, number: int) -> None:
        """Count a message."""
        if number < self.upcoming:
            self.again += 1
            return
        self.received += 1
        self.upcoming = number + 1

    def lost(self, sent: int) -> int:
        """How many of the messages that were sent have not come."""
        return sent - self.received
