"""The HTTP endpoints as OpenAPI 3.1, made of the table that requests are judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .answers import JSON
from .endpoints import MAX_VALUE, Endpoint, Parameter, errors_of
from .schemas import SCHEMAS, reference
from .who import Who

Map = dict[str, Any]

_SECURITY: Map = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A JWT, or a token that the broker knows."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same where no header can be set. Addresses are logged by proxies.",
    },
}
# None at all: there is no authentication, or the broker knows anonymous clients.
_ANY_OF: list[Map] = [{"bearer": []}, {"token": []}, {}]


def describe(endpoints: Iterable[Endpoint]) -> Map:
    """The document."""
    paths: Map = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fanwire",
            "version": "1",
            "description": "What a Fanwire broker answers over HTTP. HEAD is answered wherever GET is.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": _SECURITY},
    }


def _operation(endpoint: Endpoint) -> Map:
    operation: Map = {
        "operationId": _name_of(endpoint),
        "summary": endpoint.summary,
        "description": _about(endpoint),
        "security": [] if endpoint.who is Who.EVERYBODY else _ANY_OF,
        "parameters": [_parameter(each) for each in endpoint.parameters],
        "responses": {str(status): _answer(endpoint, status, text) for status, text in errors_of(endpoint).items()},
    }
    if endpoint.consumes:
        schema = reference(endpoint.body) if endpoint.body else {}
        operation["requestBody"] = {
            "required": bool(endpoint.body),
            "content": {media: {"schema": schema} if media == JSON else {} for media in endpoint.consumes},
        }
    return operation


def _about(endpoint: Endpoint) -> str:
    """What no schema of OpenAPI can say."""
    names = ", ".join(endpoint.alternatives)
    return f"For {endpoint.who.value}." + (f" At most one of {names} may be given." if names else "")


def _name_of(endpoint: Endpoint) -> str:
    parts = [part.strip("{}").replace(".", "_") for part in endpoint.path.split("/") if part not in ("", "v1")]
    return "_".join([endpoint.method.lower(), *parts])


def _answer(endpoint: Endpoint, status: int, text: str) -> Map:
    if status >= 400 and status not in endpoint.shaped:
        return {"description": text, "content": {JSON: {"schema": reference("Error")}}}
    schema = {"schema": reference(endpoint.schema)} if endpoint.schema else {}
    return {"description": text, "content": {endpoint.produces: schema}}


def _parameter(parameter: Parameter) -> Map:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.about,
        "required": parameter.where == "path",
        "schema": _schema(parameter),
    }


def _schema(parameter: Parameter) -> Map:
    if parameter.schema is not None:
        return dict(parameter.schema)
    schema: Map = {"type": parameter.type}
    if parameter.type in ("integer", "number"):
        schema["minimum"] = 0 if parameter.least is None else parameter.least
        schema["maximum"] = MAX_VALUE if parameter.most is None else parameter.most
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    return schema
