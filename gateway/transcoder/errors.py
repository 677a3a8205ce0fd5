"""Errors of the HTTP layer itself, and how any GridError becomes an answer.

Which status a reason has is the contract's business: the table is given to `Statuses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from gateway.transcoder.values import FieldError
from libs.errors import Code, GridError, InvalidRequest, NotFound, ResourceExhausted


class UnsupportedMediaType(InvalidRequest):
    """The body is in a format that is not read here."""

    reason = "UNSUPPORTED_MEDIA_TYPE"


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not. `allowed` is shown in the Allow header."""

    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(
            f"{method} is not offered on {path[:200]}; use {self.allowed}",
            details={"allowed": allowed},
        )


class RequestTimeout(InvalidRequest):
    """The client was too slow."""

    reason = "REQUEST_TIMEOUT"


class StreamLimit(ResourceExhausted):
    """One caller holds too many open streams."""

    reason = "STREAM_LIMIT"


class RouteNotFound(NotFound):
    """Nothing is served at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is no route {path[:200]}; see /docs for those there are")


def bad_field(error: FieldError) -> InvalidRequest:
    """A value that does not fit its field, with the field's path in the details."""
    where = error.where()
    return InvalidRequest(str(error), details={"field": where} if where else None)


class Statuses:
    """GridError to HTTP status: by reason, else by code."""

    def __init__(self, by_reason: Mapping[str, int], by_code: Mapping[Code, int]) -> None:
        self.by_reason = by_reason
        self.by_code = by_code

    def of(self, error: GridError) -> int:
        """The HTTP status of an error; 500 for a class that nobody has placed."""
        found = self.by_reason.get(error.reason)
        return found if found is not None else self.by_code.get(error.code, 500)

    def answer(self, error: GridError, headers: Mapping[str, str]) -> web.Response:
        """The whole answer: body in both shapes that clients read, Retry-After, Allow."""
        response = web.Response(
            status=self.of(error),
            body=dump(error),
            headers={"Content-Type": "application/json", **headers},
        )
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = error.allowed
        if response.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="jungle-grid"'
        return response


def shape(error: GridError) -> dict[str, Any]:
    """The error nested and, for clients that read it flat, once more at the top."""
    return {
        "error": {"code": error.reason, "message": error.message, "details": error.details},
        "code": error.reason,
        "message": error.message,
    }


def dump(error: GridError) -> bytes:
    """`shape` as JSON."""
    return orjson.dumps(shape(error), default=str)


def as_sent(error: GridError, body_field: str, headers: Mapping[str, str]) -> GridError:
    """Paths of broken rules as the client wrote them.

    A body that fills one field of the request is not inside of that field for its sender, and a
    field that a header fills has the header's name (`headers`: field name -> header).
    """
    violations = error.details.get("violations")
    if not isinstance(violations, list):
        return error
    prefix = f"{body_field}." if body_field else ""
    for item in violations:
        if isinstance(item, dict) and isinstance(item.get("field"), str):
            item["field"] = headers.get(item["field"], item["field"].removeprefix(prefix))
    where, colon, rest = error.message.partition(": ")
    if colon:
        error.message = f"{headers.get(where, where.removeprefix(prefix))}: {rest}"
    return error
