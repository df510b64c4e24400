"""A message as one line of text: for people, or as JSON."""

import json

from fanwire.client import LostMessages, Message, Stale
from fanwire.protocol import Encoding

from .json_view import payload_as_json
from .terminal_text import printable

_ENCODING_NAMES = {encoding.value: encoding.name.lower() for encoding in Encoding}


def json_line(message: Message) -> str:
    """An object: topic, data (see `payload_as_json`), encoding, time in microseconds since 1970, offset, headers, and
    whether another member of the queue group had it before."""
    fields: dict[str, object] = {
        "topic": message.topic,
        "data": payload_as_json(message.payload, message.encoding),
        "encoding": _ENCODING_NAMES.get(message.encoding, message.encoding),
        "time": message.time,
    }
    if message.offset:
        fields["offset"] = message.offset
    if message.headers:
        fields["headers"] = dict(message.headers)
    if message.redelivered:
        fields["redelivered"] = True
    return _json(fields) + "\n"


def lost_json_line(lost: LostMessages) -> str:
    """An object: lost (how many, null where nobody knows), reason, and topic, first, last where they are known."""
    fields: dict[str, object] = {"lost": lost.count, "reason": lost.reason}
    known = {"topic": lost.topic, "first": lost.first, "last": lost.last}
    return _json(fields | {name: value for name, value in known.items() if value is not None}) + "\n"


def lost_text(lost: LostMessages) -> str:
    """In words, without a newline."""
    count = "an unknown number of" if lost.count is None else f"{lost.count}"
    topic = f" of {printable(lost.topic)}" if lost.topic else ""
    return f"lost {count} messages{topic} ({printable(lost.reason)})"


def stale_json_line(stale: Stale) -> str:
    """An object: silent (for how many seconds), topic (else pattern), offset where there is one; connected."""
    about: dict[str, object] = {"pattern": stale.pattern} if stale.topic is None else {"topic": stale.topic}
    if stale.offset:
        about["offset"] = stale.offset
    return _json({"silent": round(stale.silent_s, 3), **about, "connected": stale.connected}) + "\n"


def stale_text(stale: Stale) -> str:
    """In words, without a newline."""
    silent, about = f"for {stale.silent_s:.1f} s", printable(stale.topic or stale.pattern)
    if not stale.connected:
        return f"quiet: nothing from the broker {silent} ({about})"
    if stale.topic is None:
        return f"quiet: nothing on several topics of {about} {silent}"
    return f"quiet: nothing on {about} {silent}"


def text_line(message: Message) -> str:
    """The topic and the data: text on one line, with nothing that a terminal would obey; the rest as JSON."""
    return f"{printable(message.topic)}  {data_text(message)}\n"


def data_text(message: Message) -> str:
    """The data alone, without a newline."""
    data = payload_as_json(message.payload, message.encoding)
    return printable(data if isinstance(data, str) else _json(data))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
