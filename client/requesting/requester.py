"""Sending requests: each goes out on the connection whose inbox awaits its replies, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from fanwire.protocol.fields import is_topic

from ..connecting.link import Link
from ..errors import BufferFull, RequestFailed
from ..exchange.deadlines import Deadlines
from ..exchange.outgoing import Outgoing
from ..publishing.encoder import Publisher
from ..states import State, States
from ..subscribing.inbox import Inbox, Waiting
from ..subscribing.wire_subscriptions import Feeds


@frozen
class Question:
    """What is asked."""

    topic: str
    data: object
    raw: bool
    headers: Mapping[str, str] | None


class OpenRequest:
    """A request that is on its way. Call `forget` when nobody waits for replies any more."""

    __slots__ = ("_deadlines", "_inbox", "_topic", "_waiting")

    def __init__(self, inbox: Inbox, topic: str, waiting: Waiting, deadlines: Deadlines) -> None:
        self._inbox = inbox
        self._topic = topic
        self._waiting: Waiting | None = waiting
        self._deadlines = deadlines

    @property
    def over(self) -> bool:
        """See `Expiring`."""
        return self._waiting is None

    def expire(self) -> None:
        """See `Expiring`."""
        if self._waiting is not None:
            self._waiting.expire()

    def forget(self) -> None:
        """What comes now is for nobody. Idempotent."""
        if self._waiting is not None:
            self._waiting = None
            self._inbox.forget(self._topic)
            self._deadlines.done()


class Requester:
    """One for each client."""

    def __init__(
        self,
        link: Link,
        states: States,
        feeds: Feeds,
        outgoing: Outgoing,
        publisher: Publisher,
        deadlines: Deadlines,
    ) -> None:
        self._link = link
        self._deadlines = deadlines
        self._states = states
        self._feeds = feeds
        self._outgoing = outgoing
        self._publisher = publisher

    def ask_nowait(self, question: Question, waiting: Waiting, deadline: float) -> OpenRequest | None:
        """Send a request. None: it cannot be sent now; `possible` tells when to try again.

        Args:
            question: What is asked.
            waiting: Who gets the replies, until ``forget`` of what is returned is called.
            deadline: When their time is up, on trio's clock.

        Raises:
            LocalProtocolError: It cannot be sent at all, or too many are open.
            FanwireError: There is no connection, and none is to be waited for.
        """
        self._outgoing.home.check()
        if self._link.error:
            if self._outgoing.outage:
                raise self._outgoing.outage.with_traceback(None)
            return None
        inbox = self._inbox()
        topic = inbox.expect(waiting)
        try:
            envelope = self._publisher.encode_request(
                question.topic, question.data, question.raw, question.headers, topic
            )
            self._outgoing.add_at_once(envelope, bound=True)
        except BufferFull:
            inbox.forget(topic)
            return None
        except BaseException:
            inbox.forget(topic)
            raise
        asked = OpenRequest(inbox, topic, waiting, self._deadlines)
        self._deadlines.add(deadline, asked)
        return asked

    def _inbox(self) -> Inbox:
        name = self._link.welcome.get("inbox")
        if not is_topic(name) or not is_topic(f"{name}.{'0' * 16}"):
            raise RequestFailed("bad_option", "this broker gives no inbox, so there can be no replies")
        return self._feeds.open_inbox(name)

    async def possible(self) -> None:
        """Wait until it may be possible to send a request."""
        if self._link.error:
            await self._states.wait_until(State.CONNECTED, State.CLOSED)
        else:
            await self._outgoing.progress()
