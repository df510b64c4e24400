"""What answers and bodies look like, in JSON Schema 2020-12, which is that of OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from fanwire.protocol import Encoding
from fanwire.protocol.fields import FIRST_US, LAST_US
from fanwire.protocol.topics import BLANK, MAX_NAME_BYTES

Schema = dict[str, Any]

# Of one batch.
MAX_ITEMS = 1_000

# As `protocol.topics` has it. That the length is one of bytes no schema can say.
_TOKEN = rf"[^.*>{BLANK}]+"
TOPIC: Schema = {"type": "string", "pattern": rf"^{_TOKEN}(\.{_TOKEN})*$", "minLength": 1, "maxLength": MAX_NAME_BYTES}
PATTERN: Schema = {**TOPIC, "pattern": rf"^(({_TOKEN}|\*)(\.({_TOKEN}|\*))*(\.>)?|>)$"}
EVENT_ID: Schema = {"type": "string", "pattern": "^([A-Za-z0-9_-]{1,64}:@[0-9]{1,18})?$"}
MOMENT: Schema = {"anyOf": [{"const": 0}, {"type": "integer", "minimum": FIRST_US, "maximum": LAST_US}]}
WORD: Schema = {"type": "string", "minLength": 1}

_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_LIST: Schema = {"type": "array", "items": {"type": "object"}}
_ENCODING: Schema = {"type": "string", "enum": [each.name.lower() for each in Encoding]}
_HEADERS: Schema = {"type": "object", "additionalProperties": _TEXT}
_META: Schema = {"key": _TEXT, "headers": _HEADERS, "reply_to": _TEXT, "retained": {"type": "boolean"}}


def _or_null(schema: Schema) -> Schema:
    """What may be left out of a batch's message may also be null there."""
    return {"oneOf": [schema, {"type": "null"}]}


def reference(name: str) -> Schema:
    """To one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _map(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_MESSAGE: Schema = {"offset": _COUNT, "time": _COUNT, "encoding": _ENCODING, "payload": {}, **_META}
_NAMED: Schema = {"topic": _TEXT, "epoch": _TEXT}
_PUBLISHED: Schema = {"offset": _COUNT, "subscribers": _COUNT, "lagging": _COUNT, "repeated": {"type": "boolean"}}
_ERROR: Schema = {"code": _TEXT, "message": _TEXT, "detail": {"type": "object"}}

SCHEMAS: dict[str, Schema] = {
    "Error": _map({"error": _map(_ERROR, "detail")}),
    "Status": _map({"status": {"type": "string", "enum": ["ok", "ready", "draining"]}, "version": _TEXT}, "version"),
    "Stats": {"type": "object"},
    "Connections": _map({"total": _COUNT, "lagging": _COUNT, "connections": _LIST}),
    "Closed": _map({"closed": _LIST}),
    "Disconnected": _map({"disconnected": _TEXT}),
    "Subscriptions": _map({"total": _COUNT, "subscriptions": _LIST}),
    "Topics": _map({"topics": _LIST, "more": {"type": "boolean"}}),
    "Message": _map(_MESSAGE, *_META),
    "Last": _map({**_NAMED, **_MESSAGE}, *_META),
    "History": _map(
        {
            **_NAMED,
            "head": _COUNT,
            "more": {"type": "boolean"},
            "messages": {"type": "array", "items": reference("Message")},
        }
    ),
    "Published": _map({**_NAMED, **_PUBLISHED}, "repeated"),
    "Results": _map(
        {
            "published": _COUNT,
            "failed": _COUNT,
            "results": {
                "type": "array",
                "items": {"oneOf": [reference("Published"), reference("Error")]},
            },
        }
    ),
    "Batch": {
        "type": "array",
        "description": "What is wrong with one of them is told in its place among the results (207).",
        "maxItems": MAX_ITEMS,
        "items": {
            **_map(
                {
                    "topic": TOPIC,
                    "payload": {"description": 'Any value; {"$bin": BASE64} stands for bytes.'},
                    "encoding": _or_null(_ENCODING),
                    "headers": _or_null(_HEADERS),
                    "key": _or_null(WORD),
                    "retain": _or_null({"type": "boolean"}),
                    "msg_id": _or_null(WORD),
                    "expect": _or_null(_COUNT),
                    "reply_to": _or_null(TOPIC),
                },
                "encoding", "headers", "key", "retain", "msg_id", "expect", "reply_to",
            ),
            "additionalProperties": False,
        },
    },
    "OpenApi": _map({"openapi": _TEXT, "info": {"type": "object"}, "paths": {"type": "object"}}),
}  # fmt: skip
