"""The file adapter: a folder, and URLs that the gateway serves."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from libs.clock import Clock
from libs.objects.blobs import Blobs, Upload
from libs.objects.port import (
    STAGING,
    ObjectInfo,
    ObjectsUnavailable,
    Route,
    SignedRequest,
    check_key,
    is_final,
)
from libs.objects.signature import Grant, UrlSigner
from libs.telemetry import logger

P = ParamSpec("P")
T = TypeVar("T")
_log = logger("objects")
_PIECE = 256 << 10
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_EXIT_FATAL = 74  # EX_IOERR of sysexits.h


def end_process(error: BaseException) -> NoReturn:
    """After an I/O error, above all of fsync, the kernel may have dropped what it had promised to
    write; a process that goes on would acknowledge bytes that are not there."""
    _log.critical("fatal object store error, ending the process", error=repr(error))
    os._exit(_EXIT_FATAL)


class FileObjects:
    """See Objects for the promises. Disk work runs on threads."""

    def __init__(
        self,
        root: Path,
        base_url: str,
        *,
        key: bytes,
        clock: Clock,
        fatal: Callable[[BaseException], NoReturn] = end_process,
    ) -> None:
        self._blobs = Blobs(root)
        self._base_url = base_url.rstrip("/")
        self.signer = UrlSigner(key)
        self.clock = clock
        self._fatal = fatal

    async def start(self) -> None:
        await self.run(self._blobs.open)

    async def stop(self) -> None:
        """Nothing is held open."""

    def sign_put(
        self,
        key: str,
        *,
        content_type: str,
        size_max: int,
        expires_seconds: float,
        single_use_id: str,
    ) -> SignedRequest:
        if is_final(check_key(key)):
            raise ValueError(f"only keys under {STAGING} can be put by clients")
        if size_max < 1:
            raise ValueError("size_max must be positive")
        expires = self._expires(expires_seconds)
        grant = Grant("PUT", key, _seconds(expires), content_type, size_max, single_use_id)
        headers = {"Content-Type": content_type} if content_type else {}
        return SignedRequest("PUT", self._url(grant), headers, expires)

    def sign_get(
        self, key: str, *, filename: str, content_type: str, expires_seconds: float
    ) -> SignedRequest:
        expires = self._expires(expires_seconds)
        grant = Grant(
            "GET", check_key(key), _seconds(expires), content_type=content_type, filename=filename
        )
        return SignedRequest("GET", self._url(grant), {}, expires)

    async def head(self, key: str) -> ObjectInfo | None:
        return await self.run(self._blobs.info, check_key(key))

    async def copy(self, source: str, target: str, *, if_match_etag: str) -> ObjectInfo:
        if not is_final(check_key(target)):
            raise ValueError("a copy goes to a final key")
        return await self.run(self._blobs.copy, check_key(source), target, if_match_etag)

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], content_type: str
    ) -> ObjectInfo:
        check_key(key)
        upload = await self.begin()
        try:
            if isinstance(data, bytes):
                await self.run(upload.write, data)
            else:
                async for piece in data:
                    await self.run(upload.write, piece)
            return await self.finish(upload, key, content_type)
        finally:
            upload.discard()

    async def read(self, key: str) -> AsyncIterator[bytes]:
        file, info = await self.run(self._blobs.open_object, check_key(key))
        try:
            left = info.size
            while left:
                piece = await self.run(file.read, min(_PIECE, left))
                if not piece:
                    raise OSError(f"object {key} is shorter than it says")
                left -= len(piece)
                yield piece
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        await self.run(self._blobs.delete, check_key(key))

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        def find() -> list[ObjectInfo]:
            keys = sorted(key for key in self._blobs.walk(prefix) if key > after)
            found = (self._blobs.info(key) for key in keys[:limit])
            return [info for info in found if info is not None]

        return await self.run(find)

    def http_handlers(self) -> Sequence[Route]:
        from libs.objects.http import FileHandlers

        return FileHandlers(self, self._blobs).routes()

    async def begin(self) -> Upload:
        """A file aside."""
        return await self.run(self._blobs.create)

    async def finish(
        self, upload: Upload, key: str, content_type: str, single_use_id: str = ""
    ) -> ObjectInfo:
        """Makes an upload durable, visible and described."""

        def seal_and_place() -> ObjectInfo:
            upload.seal(content_type)
            return self._blobs.place(upload, key, single_use_id)

        return await self.run(seal_and_place)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs disk work on a thread; a full disk is ObjectsUnavailable, a broken one the end."""
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise ObjectsUnavailable(
                    "the object store is full; try again later", retry_after_seconds=10.0
                ) from error
            if error.errno == errno.EIO:
                self._fatal(error)
            raise

    def _expires(self, seconds: float) -> datetime:
        # Whole seconds, rounded up: that is what the URL can say.
        end = self.clock.now() + timedelta(seconds=seconds)
        return datetime.fromtimestamp(-(-end.timestamp() // 1), UTC)

    def _url(self, grant: Grant) -> str:
        return f"{self._base_url}/objects/{grant.key}?{self.signer.query(grant)}"


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
