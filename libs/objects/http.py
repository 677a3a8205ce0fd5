"""The HTTP side of the file store: signed PUT and GET. No URL is ever logged here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from libs.errors import Code, GridError, InvalidRequest, PayloadTooLarge
from libs.objects.blobs import Blobs, Upload
from libs.objects.port import ObjectInfo, ObjectMissing, Route, check_key, is_final
from libs.objects.ranges import RangeNotSatisfiable, parse_range
from libs.objects.signature import Grant, SignatureInvalid

if TYPE_CHECKING:
    from libs.objects.file import FileObjects

_PIECE = 256 << 10
# A client that sends nothing for so long is gone.
_SILENCE_SECONDS = 30.0
_DEFAULT_TYPE = "application/octet-stream"
_PATH = "/objects/{key:.+}"
_STATUS = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    Code.OUT_OF_RANGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UploadBroken(InvalidRequest):
    """The client stopped before the end of what it had announced."""

    reason = "UPLOAD_INCOMPLETE"


class FileHandlers:
    """Serves the URLs that a FileObjects has signed."""

    def __init__(self, objects: FileObjects, blobs: Blobs) -> None:
        self._objects = objects
        self._blobs = blobs

    def routes(self) -> Sequence[Route]:
        """For the gateway."""
        return [
            ("PUT", _PATH, _answering(self.put)),
            ("GET", _PATH, _answering(self.get)),
            ("HEAD", _PATH, _answering(self.get)),
        ]

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Takes an upload: streams it aside, counts and hashes it, and puts it in place."""
        grant = self._grant(request, "PUT")
        if is_final(grant.key):
            raise SignatureInvalid("this key cannot be written")
        sent_type = request.headers.get("Content-Type", "")
        if grant.content_type and sent_type != grant.content_type:
            raise SignatureInvalid(f"this URL takes Content-Type: {grant.content_type}")
        if (request.content_length or 0) > grant.size_max:
            raise _too_large(grant)
        upload = await self._objects.begin()
        try:
            await self._receive(request, upload, grant)
            info = await self._objects.finish(
                upload, grant.key, grant.content_type or sent_type, grant.single_use_id
            )
        finally:
            upload.discard()
        return web.Response(headers={"ETag": f'"{info.etag}"'})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Gives an object as a download, whole or a range of it."""
        grant = self._grant(request, "GET")
        file, info = await self._objects.run(self._blobs.open_object, grant.key)
        try:
            return await self._send(request, grant, file, info)
        finally:
            file.close()

    def _grant(self, request: web.Request, method: str) -> Grant:
        try:
            key = check_key(request.match_info["key"])
        except ValueError:
            raise ObjectMissing("there is no such object") from None
        now = self._objects.clock.now().timestamp()
        return self._objects.signer.grant(method, key, request.query, now)

    async def _receive(self, request: web.Request, upload: Upload, grant: Grant) -> None:
        pieces: list[bytes] = []
        size = 0
        while piece := await _next_piece(request):
            size += len(piece)
            if size > grant.size_max:
                raise _too_large(grant)
            pieces.append(piece)
            if size - upload.size >= _PIECE:
                await self._objects.run(upload.write, b"".join(pieces))
                pieces.clear()
        await self._objects.run(upload.write, b"".join(pieces))

    async def _send(
        self, request: web.Request, grant: Grant, file: BinaryIO, info: ObjectInfo
    ) -> web.StreamResponse:
        headers = _download_headers(grant, info)
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        first, last, status = 0, info.size - 1, HTTPStatus.OK
        wanted = request.headers.get("Range")
        if wanted and request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
            found = parse_range(wanted, info.size)
            if found is not None:
                first, last = found
                status = HTTPStatus.PARTIAL_CONTENT
                headers["Content-Range"] = f"bytes {first}-{last}/{info.size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = left = last - first + 1
        await response.prepare(request)
        if request.method != "HEAD":
            await self._objects.run(file.seek, first)
            while left:
                piece = await self._objects.run(file.read, min(_PIECE, left))
                if not piece:
                    raise OSError("an object is shorter than it says")
                left -= len(piece)
                await response.write(piece)
        await response.write_eof()
        return response


async def _next_piece(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_SILENCE_SECONDS):
            return await request.content.readany()
    except TimeoutError:
        raise UploadBroken(f"nothing came for {_SILENCE_SECONDS:.0f} s; send it again") from None
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
        raise UploadBroken("the upload ended too early; send it again") from None


def _download_headers(grant: Grant, info: ObjectInfo) -> dict[str, str]:
    name = grant.filename or info.key.rpartition("/")[2]
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return {
        "Content-Type": grant.content_type or info.content_type or _DEFAULT_TYPE,
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}",
        "ETag": f'"{info.etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
        # What a job wrote must never run in our origin, whatever it claims to be.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Referrer-Policy": "no-referrer",
    }


def _too_large(grant: Grant) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"this upload may have at most {grant.size_max} bytes",
        details={"size_bytes_max": grant.size_max},
    )


def _answering(handler: Handler) -> Handler:
    """Turns errors into the public shape."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RangeNotSatisfiable as error:
            headers = {"Content-Range": f"bytes */{error.size}"}
            return _error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, error, headers)
        except GridError as error:
            status = _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
            headers = {}
            if error.retry_after_seconds is not None:
                headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
            return _error(status, error, headers)

    return answer


def _error(status: HTTPStatus, error: GridError, headers: dict[str, str]) -> web.Response:
    inner = {"code": error.reason, "message": error.message, "details": error.details}
    body = {"error": inner, "code": error.reason, "message": error.message}
    response = web.json_response(body, status=status, headers=headers)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The rest of the body is not worth reading.
        response.force_close()
    return response
