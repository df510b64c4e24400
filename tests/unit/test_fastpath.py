"""`take_publishes` and the codec together see what the codec alone would see."""

from __future__ import annotations

import sys
from collections import defaultdict

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fanwire.protocol import (
    Encoding,
    LocalProtocolError,
    Malformed,
    Ping,
    Publish,
    PublishOptions,
    check_topic,
    decode_from_client,
    encode,
)
from fanwire.protocol.fastpath import Gathering, Run, request_at, take_publishes

_TOPICS = ("a", "b.c", "stocks.AAPL", "x" * 31, "y" * 32, "z" * 200, "für.immer")
Published = tuple[bytes, int, int]  # payload, encoding, request


class Topic(Gathering):
    """What a broker keeps for one topic."""

    __slots__ = ("name",)

    def __init__(self, name: str, in_order: bool) -> None:
        super().__init__()
        self.name = name
        self.in_order = in_order


class Reader:
    """A broker's ingress, without the broker: the fast road as far as it goes, then the codec for one message."""

    def __init__(self, in_order: frozenset[str] = frozenset(), most: int = 1_000_000) -> None:
        self._most = most
        self.published: list[tuple[str, Published]] = []
        self.others: list[object] = []
        self.runs: list[Run[Topic]] = []
        self._in_order = in_order
        self._topics: dict[str, Topic] = {}
        self._heads: dict[bytes, tuple[Topic, bool]] = {}

    def learn(self, packed: bytes) -> Topic | None:
        """Valid topics only."""
        try:
            name = check_topic(msgpack.unpackb(packed))
        except (ValueError, LocalProtocolError, msgpack.UnpackException):
            return None
        return self._topics.setdefault(name, Topic(name, name in self._in_order))

    def read(self, messages: list[bytes]) -> None:
        """One batch."""
        index = at = 0
        while index < len(messages):
            runs: list[Run[Topic]] = []
            before = index, at
            last = sys.maxsize if self._most >= 1_000_000 else index + 1 + self._most % 7
            index, at, other = take_publishes(messages, index, self._heads, self.learn, runs, at, last, self._most)
            self._publish(runs)
            if other:
                self.read_slowly(messages[index], at)
                index, at = index + 1, 0
            assert (index, at) > before, "no slice is too small to get on"

    def _publish(self, runs: list[Run[Topic]]) -> None:
        self.runs += runs
        for topic, wide, tails, requests in runs:
            topic.tails = None
            assert len(requests) in (0, len(tails))
            for i, tail in enumerate(tails):
                unpacker = msgpack.Unpacker()
                unpacker.feed(tail)
                values = list(unpacker)
                assert len(values) == (2 if wide else 1)
                self._add(topic.name, values[0], values[1] if wide else 0, requests[i] if requests else 0)

    def read_slowly(self, message: bytes, at: int = 0) -> None:
        """The codec alone."""
        try:
            for envelope in decode_from_client(message, at):
                if isinstance(envelope, Publish) and not envelope.options.to_map():
                    self._add(envelope.topic, envelope.payload, int(envelope.encoding), envelope.id)
                else:
                    self.others.append(envelope)
        except Malformed:
            self.others.append(Malformed)

    def _add(self, topic: str, payload: bytes, encoding: int, request: int) -> None:
        self.published.append((topic, (payload, encoding, request)))

    def by_topic(self) -> dict[str, list[Published]]:
        """In the order published."""
        topics: dict[str, list[Published]] = defaultdict(list)
        for topic, published in self.published:
            topics[topic].append(published)
        return topics

    def answered(self) -> list[tuple[str, Published]]:
        """Those with a request number: their answers come in this order."""
        return [each for each in self.published if each[1][2]]


def _lone(messages: list[bytes]) -> Reader:
    reader = Reader()
    for message in messages:
        reader.read_slowly(message)
    return reader


_payloads = st.binary(max_size=40) | st.sampled_from((0, 255, 256, 65535, 65536)).map(lambda size: b"x" * size)
_ids = st.just(0) | st.just(0) | st.sampled_from((1, 127, 128, 255, 256, 65536, 2**32, 2**53))
_few_topics = st.sampled_from(_TOPICS[:2])  # so that they meet again
_publishes = st.builds(
    lambda request, topic, payload, encoding: encode(Publish(request, topic, payload, encoding)),
    _ids,
    _few_topics | _few_topics | st.sampled_from(_TOPICS),
    st.binary(max_size=2) | st.binary(max_size=2) | _payloads,
    st.just(Encoding.RAW) | st.sampled_from(list(Encoding)),
)
_odd = st.one_of(
    st.builds(lambda request: encode(Ping(request)), st.integers(1, 300)),
    st.builds(
        lambda *elements: bytes(msgpack.packb([4, *elements])),
        st.integers(-1, 300) | st.none(),
        st.sampled_from(("a", "b.>", "", "a b", "a..b", 7, None, "ü" * 200)),
        _payloads | st.just("text") | st.just([1]),
        st.integers(-1, 5) | st.none() | st.booleans(),
    ),
    st.builds(
        lambda topic, payload: bytes(msgpack.packb([4, 0, topic, payload, 0, {"headers": {"a": "b"}}])),
        st.sampled_from(_TOPICS),
        st.binary(max_size=10),
    ),
    st.sampled_from(
        (b"\x94\x04\x00\xd9\x01a\xc4\x01x", b"\x94\x04\xcc\x01\xa1a\xc4\x01x", b"\x94\x04\x00\xa1a\xc6\0\0\0\1x")
    ),
    st.binary(max_size=12),
)
_messages = st.lists(
    st.lists(_publishes | _publishes | _odd, max_size=8).map(b"".join)
    | st.builds(lambda publish, times: publish * times, _publishes, st.integers(1, 5))
    | st.builds(lambda publish, cut: publish[:-cut], _publishes, st.integers(1, 4)),
    max_size=6,
)


def _publish(topic: str, payload: bytes, request: int = 0, encoding: Encoding = Encoding.RAW) -> bytes:
    return encode(Publish(request, topic, payload, encoding))


@given(_messages, st.frozensets(st.sampled_from(_TOPICS), max_size=2), st.sampled_from((1, 7, 20, 1_000_000)))
@example([_publish("a", b"1"), _publish("a", b"2", 7), _publish("a", b"3")], frozenset(), 1_000_000)
@example([_publish("a", b"1"), _publish("a", b"2", encoding=Encoding.TEXT), _publish("a", b"3")], frozenset(), 7)
@example([_publish("a", b"1", 1), _publish("b.c", b"2", 2), _publish("a", b"3", 3)], frozenset(), 1_000_000)
@example([b"\x95\x04\x00\xa1a\xc4\x011\x04"], frozenset(), 1_000_000)
def test_with_the_codec_alone(messages: list[bytes], in_order: frozenset[str], most: int) -> None:
    """The same publishes for each topic in the same order, answers in the order asked, the same refusals; also when
    only so many bytes are looked at at a time."""
    alone, reader = _lone(messages), Reader(in_order, most)

    reader.read(messages)

    assert reader.by_topic() == alone.by_topic()
    assert reader.answered() == alone.answered()
    assert reader.others == alone.others


@given(_messages)
@example([_publish("a", b"1"), _publish("b.c", b"2"), _publish("a", b"3")])
def test_topics_that_share_a_wildcard(messages: list[bytes]) -> None:
    """Where somebody gets several topics through one wildcard, they all stay in the order published."""
    alone, reader = _lone(messages), Reader(frozenset(_TOPICS))

    reader.read(messages)

    assert reader.published == alone.published


@given(st.lists(_messages, min_size=2, max_size=3))
def test_batch_after_batch(batches: list[list[bytes]]) -> None:
    """What one batch has taught does not mislead the next."""
    reader = Reader()

    for batch in batches:
        reader.read(batch)

    alone = _lone([message for batch in batches for message in batch])
    assert reader.by_topic() == alone.by_topic()
    assert reader.others == alone.others


def test_one_run() -> None:
    """A thousand publishes on one topic, in one message or in many, are one run, and the codec has nothing to do."""
    publish = encode(Publish(0, "stocks.AAPL", b"184.2"))
    reader = Reader()

    reader.read([publish * 600, *[publish] * 400])

    assert [len(tails) for _, _, tails, _ in reader.runs] == [1000]


@pytest.mark.parametrize("cut", range(1, 12))
def test_cut_off(cut: int) -> None:
    """An envelope that ends with its message is not read on in the next one."""
    publish = encode(Publish(0, "ab", b"cd"))
    reader = Reader()

    reader.read([publish + publish[:-cut], publish])

    assert reader.by_topic() == {"ab": [(b"cd", 0, 0)] * 2}
    assert reader.others == ([Malformed] if cut < len(publish) else [])


_REQUEST = encode(Publish(0, "a.b", b"xyz", Encoding.TEXT, PublishOptions(reply_to="$inbox." + "0" * 32 + ".1")))


@given(
    st.builds(
        Publish,
        st.sampled_from([0, 0, 1, 200]),
        st.sampled_from(_TOPICS),
        st.binary(max_size=300) | st.just(b"x" * 70_000),
        st.sampled_from(Encoding),
        st.builds(
            PublishOptions,
            reply_to=st.sampled_from([*_TOPICS, "$inbox." + "1" * 40]),
            key=st.none() | st.just("k"),
        ),
    ),
    st.binary(max_size=3),
    st.binary(max_size=3),
)
def test_a_request_is_taken_for_what_the_codec_takes_it_for(publish: Publish, before: bytes, behind: bytes) -> None:
    """Or left to it; and most are not."""
    data = encode(publish)
    found = request_at(before + data + behind, len(before))

    usual = not publish.id and publish.options.key is None and len(publish.payload) < 65536
    assert (found is not None) == (usual and len(publish.options.reply_to or "") >= 32)
    if found is not None:
        assert found.stop == len(before) + len(data)
        assert msgpack.unpackb(found.topic) == publish.topic
        assert found.reply_to.decode() == publish.options.reply_to
        payload, encoding, meta = msgpack.unpackb(b"\x93" + found.tail)
        assert (payload, encoding, meta) == (publish.payload, publish.encoding, publish.options.to_map())


@given(st.integers(0, len(_REQUEST) - 1), st.integers(0, 255))
def test_what_is_nearly_a_request_is_no_other_one_than_the_codec_says(at: int, byte: int) -> None:
    """One byte changed: what is found, the codec finds too, unless the name is no topic, which the caller looks at."""
    data = _REQUEST[:at] + bytes((byte,)) + _REQUEST[at + 1 :]
    found = request_at(data, 0)
    if found is None or found.stop != len(data):
        return
    try:
        [envelope] = decode_from_client(data)
    except Malformed:
        envelope = None
    if isinstance(envelope, Publish):
        assert envelope.options == PublishOptions(reply_to=found.reply_to.decode())
        assert (envelope.id, envelope.topic) == (0, msgpack.unpackb(found.topic))
    else:
        names = (found.topic[1 + (found.topic[0] == 0xD9) :], found.reply_to)  # to be looked at by the caller
        assert not all(_is_topic(name) for name in names)


def _is_topic(name: bytes) -> bool:
    try:
        check_topic(name.decode())
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("size", range(len(_REQUEST)))
def test_a_request_that_is_cut_off_is_none(size: int) -> None:
    """The codec says what is wrong with it."""
    assert request_at(_REQUEST[:size], 0) is None
