"""The bytes of a request body, within limits of size and time."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from gateway.transcoder.errors import RequestTimeout, UnsupportedMediaType
from libs.errors import InvalidRequest, PayloadTooLarge

_ENCODINGS = frozenset({"gzip", "deflate", "identity"})
_ORDINARY = frozenset({"application/json", "application/json; charset=utf-8"})


async def read(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """The whole body, decompressed. `limit` counts bytes after decompression.

    Raises PayloadTooLarge, UnsupportedMediaType, RequestTimeout or InvalidRequest.
    """
    if not request.body_exists:
        return b""
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.lower() not in _ENCODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding '{encoding[:40]}' is not supported; send gzip, deflate or none"
        )
    try:
        if request.content.is_eof():  # it has all arrived: no timer, no waiting
            return await _collect(request, limit)
        async with asyncio.timeout(seconds):
            return await _collect(request, limit)
    except TimeoutError:
        raise RequestTimeout(
            f"the request body did not arrive within {seconds:g} s; send it again"
        ) from None
    except HTTPRequestEntityTooLarge:
        raise too_large(limit) from None
    except (ContentEncodingError, web.PayloadAccessError, web.RequestPayloadError):
        raise InvalidRequest("the request body is damaged; check its encoding and length") from None


async def _collect(request: web.BaseRequest, limit: int) -> bytes:
    content = request.content
    first = await content.readany()
    if content.at_eof():
        if len(first) > limit:
            raise too_large(limit)
        return first
    body = bytearray(first)
    while not content.at_eof():
        body += await content.readany()
        if len(body) > limit:
            raise too_large(limit)
    return bytes(body)


def too_large(limit: int) -> PayloadTooLarge:
    """The error for a body over `limit` bytes."""
    return PayloadTooLarge(
        f"the request body is larger than the {limit} bytes that this route accepts; send less",
        details={"limit_bytes": limit},
    )


def parse(request: web.BaseRequest, body: bytes) -> Any:
    """The JSON value of a body; an empty object for an empty one."""
    if not body:
        return {}
    kind = request.headers.get("Content-Type")
    if kind not in _ORDINARY:
        _check_kind(kind)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"malformed JSON: {error.msg} (position {error.pos})") from None


def _check_kind(kind: str | None) -> None:
    """JSON by any of its names. A body without a type is taken for JSON, as curl scripts need."""
    name, _, parameters = (kind or "application/json").partition(";")
    name = name.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "").partition("charset=")[2]
    if name != "application/json" and not (name.startswith("application/") and "+json" in name):
        raise UnsupportedMediaType(
            f"Content-Type '{name[:80]}' is not supported; send application/json"
        )
    if charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(f"charset '{charset[:40]}' is not supported; send UTF-8")
