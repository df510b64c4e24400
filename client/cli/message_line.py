"""A message as one line of text: for people, or as JSON."""

import json

from fanwire.client import Message
from fanwire.protocol import Encoding

from .json_view import payload_as_json
from .terminal_text import printable

_ENCODING_NAMES = {encoding.value: encoding.name.lower() for encoding in Encoding}


def json_line(message: Message) -> str:
    """An object: topic, data (see `payload_as_json`), encoding, time in microseconds since 1970, offset, headers."""
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
    return _json(fields) + "\n"


def text_line(message: Message) -> str:
    """The topic and the data: text on one line, with nothing that a terminal would obey; the rest as JSON."""
    data = payload_as_json(message.payload, message.encoding)
    shown = data if isinstance(data, str) else _json(data)
    return f"{printable(message.topic)}  {printable(shown)}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
