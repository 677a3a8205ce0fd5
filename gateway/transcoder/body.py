"""The bytes of a request body, within limits of size and time."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

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
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.lower() not in _ENCODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding '{encoding[:40]}' is not supported; send gzip, deflate or none"
        )
    content = request.content
    try:
        if content.is_eof() and encoding is None:  # it has all arrived: no timer, no waiting
            body = content.read_nowait()
        else:
            body = await _collect(request, limit, seconds)
    except TimeoutError:
        raise RequestTimeout(
            f"the request body did not arrive within {seconds:g} s; send it again"
        ) from None
    except (ContentEncodingError, web.PayloadAccessError, web.RequestPayloadError):
        raise InvalidRequest("the request body is damaged; check its encoding and length") from None
    if len(body) > limit:
        raise too_large(limit)
    return body


async def _collect(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    length, content = request.content_length, request.content
    if length is not None and length > limit:
        raise too_large(limit)
    await invite(request)
    body = bytearray()
    async with asyncio.timeout(seconds):
        while not content.at_eof():
            body += await content.readany()
            if len(body) > limit:
                raise too_large(limit)
    return bytes(body)


async def invite(request: web.BaseRequest) -> None:
    """Says 100 Continue to a client that waits for it before it sends its body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # It is no part of the answer: that has not begun.
        request.writer.output_size = 0


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
