"""The whole document: paths, what each answers with, which scopes open it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from gateway.transcoder import rules
from gateway.transcoder.errors import Statuses
from gateway.transcoder.openapi.comments import Comments
from gateway.transcoder.openapi.schemas import Schema, Schemas
from gateway.transcoder.rules import WHOLE_BODY, Route

_REASON = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bCONFLICT\b|\bFORBIDDEN\b")
_PARAMETER = re.compile(r"\{([a-z0-9_.]+)=[^}]*\}")
_SECURITY = "apiKey"


@dataclass(frozen=True)
class Info:
    """What the descriptors do not say. `extra` are paths that no method serves."""

    title: str
    version: str
    description: str
    statuses: Statuses
    extra: Mapping[str, Any] = field(default_factory=dict)


def document(routes: Iterable[Route], comments: Comments, info: Info) -> dict[str, Any]:
    """An OpenAPI 3.1 document as JSON-able data."""
    schemas = Schemas(comments)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    used: set[str] = set()
    for route in routes:
        tags.setdefault(route.tag, comments.of(route.method.containing_service.full_name))
        operation = _operation(route, schemas, comments, info.statuses)
        operation["operationId"] = _unused(route.method.name, used)
        paths.setdefault(_path(route), {})[route.verb.lower()] = operation
    for path, item in info.extra.items():
        paths.setdefault(path, {}).update(item)
    return {
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": info.description},
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": text} if text else {"name": name}
            for name, text in tags.items()
        ],
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, "Error": _error_schema(info.statuses)},
            "securitySchemes": {
                _SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "jg_...",
                    "description": "A scoped API key. Any one of the scopes named is enough.",
                }
            },
            "headers": {
                "RequestId": {
                    "description": "Id of this request; name it when you report a problem.",
                    "schema": {"type": "string"},
                },
                "RetryAfter": {
                    "description": "Seconds after which the same request may succeed.",
                    "schema": {"type": "integer"},
                },
            },
        },
    }


def _unused(name: str, used: set[str]) -> str:
    number = 1
    found = name
    while found in used:
        number += 1
        found = f"{name}{number}"
    used.add(found)
    return found


def _path(route: Route) -> str:
    return _PARAMETER.sub(r"{\1}", route.path)


def _operation(
    route: Route, schemas: Schemas, comments: Comments, statuses: Statuses
) -> dict[str, Any]:
    text = comments.of(route.method.full_name)
    found: dict[str, Any] = {
        "tags": [route.tag],
        "summary": text.split("\n\n")[0].split(". ")[0].rstrip("."),
        "description": text,
        "responses": _responses(route, schemas, comments, statuses),
        "security": _security(route),
    }
    if parameters := _parameters(route, schemas):
        found["parameters"] = parameters
    if route.body:
        request = route.method.input_type
        message = (
            request if route.body == WHOLE_BODY else request.fields_by_name[route.body].message_type
        )
        assert message is not None
        schema = _body_schema(route, schemas, message)
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Alternatives, because any one of the scopes is enough."""
    if route.public:
        return []
    return [{_SECURITY: [scope]} for scope in sorted(route.scopes)] or [{_SECURITY: []}]


def _body_schema(route: Route, schemas: Schemas, message: Any) -> Schema:
    """The message's schema, less the fields that the path fills."""
    whole = schemas.message(message, "read")
    if route.body != WHOLE_BODY or not route.template.names:
        return whole
    inline = {
        item.name: schemas.field(item, "read")
        for item in message.fields
        if item.name not in route.template.names
        and not rules.of_field(item).header
        and not rules.of_field(item).internal
    }
    return {"type": "object", "properties": inline}


def _parameters(route: Route, schemas: Schemas) -> list[dict[str, Any]]:
    fields = route.method.input_type.fields_by_name
    found = [_parameter(name, "path", schemas.field(fields[name], "read"))
             for name in route.template.names]  # fmt: skip
    found += [
        _parameter(name, "query", schemas.field(item, "read"))
        for name, item in route.query_fields.items()
        if name == item.name
    ]
    found += [
        _parameter(name, "header", schemas.field(item, "read"))
        for name, item in route.header_fields.items()
    ]
    return found


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": place, "schema": schema}
    if text := schema.pop("description", ""):
        found["description"] = text
    if place == "path":
        found["required"] = True
    return found


def _responses(
    route: Route, schemas: Schemas, comments: Comments, statuses: Statuses
) -> dict[str, Any]:
    found = {str(route.success_status): _success(route, schemas, comments)}
    reasons = _reasons(route, comments, statuses)
    for status in sorted(reasons):
        found[str(status)] = _refusal(status, sorted(reasons[status]))
    return found


def _success(route: Route, schemas: Schemas, comments: Comments) -> dict[str, Any]:
    output = route.method.output_type
    text = comments.of(output.full_name) or HTTPStatus(route.success_status).phrase
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if route.streams:
        oneof = output.oneofs_by_name[route.event_oneof]
        events = {
            item.name: schemas.message(item.message_type, "shown")
            for item in oneof.fields
            if item.message_type is not None
        }
        names = ", ".join(events)
        kind = {"schema": {"type": "string"}, "x-events": events}
        text = f"{text} Events: {names}; `error` when the stream breaks."
        return {"description": text, "headers": headers, "content": {"text/event-stream": kind}}
    schema = (
        schemas.field(output.fields_by_name[route.response_body], "shown")
        if route.response_body
        else schemas.message(output, "shown")
    )
    return {
        "description": text,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _reasons(route: Route, comments: Comments, statuses: Statuses) -> dict[int, set[str]]:
    """Status -> reasons: those every such route has, and those that the comment names."""
    every = {"INTERNAL_ERROR", "UNAVAILABLE"}
    if not route.streams:
        every.add("DEADLINE_EXCEEDED")
    if route.body or route.template.names or route.query_fields:
        every.add("INVALID_REQUEST")
    if route.body:
        every |= {"PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "REQUEST_TIMEOUT"}
    if route.template.names:
        every.add("NOT_FOUND")
    if not route.public:
        every |= {"UNAUTHORIZED", *(("FORBIDDEN",) if route.scopes else ())}
    if route.streams:
        every.add("STREAM_LIMIT")
    every |= set(_REASON.findall(comments.of(route.method.full_name)))
    found: dict[int, set[str]] = {}
    for reason in every & set(statuses.by_reason):
        found.setdefault(statuses.by_reason[reason], set()).add(reason)
    return found


def _refusal(status: int, reasons: list[str]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return {
        "description": ", ".join(reasons),
        "headers": headers,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _error_schema(statuses: Statuses) -> Schema:
    code = {"type": "string", "examples": sorted(statuses.by_reason)[:3]}
    message = {"type": "string", "description": "What happened and what to do about it."}
    return {
        "type": "object",
        "description": "An error, nested and once more flat for clients that read it so.",
        "required": ["error", "code", "message"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {"code": code, "message": message, "details": {"type": "object"}},
            },
            "code": code,
            "message": message,
        },
    }
