"""Sends what a job left under its artifacts folder: announce, PUT, commit, each until it works."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as pb

from libs import failpoints
from libs.clock import Clock
from libs.errors import Code, GridError, Unavailable
from libs.telemetry import logger
from services.node_daemon.collect import CollectedFile, Collection
from services.node_daemon.config import Limits
from services.node_daemon.grid import RETRYABLE, Backoff, Grid

_log = logger("uploads")
AFTER_PUT = failpoints.register(
    "node.upload.after_put", "the bytes of an artifact are in the store, it is not committed"
)
# Times that bytes may arrive as others than were announced.
_DAMAGED_MAX = 3
# Beyond this a digest is worth a thread.
_INLINE_BYTES = 1024 * 1024
_OK = frozenset({200, 201, 204})


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a collection: names that are committed, their bytes, and names that are not,
    with the reason."""

    names: tuple[str, ...] = ()
    size_bytes: int = 0
    failed: tuple[tuple[str, str], ...] = ()


class Uploads:
    """Shared by all attempts: `uploads_at_once` bounds the files under way on this node."""

    def __init__(
        self, grid: Grid, http: aiohttp.ClientSession, clock: Clock, limits: Limits
    ) -> None:
        self._grid = grid
        self._http = http
        self._clock = clock
        self._limits = limits
        self._room = asyncio.Semaphore(limits.uploads_at_once)

    async def send(self, files: Collection, grant: Callable[[], bytes]) -> Sent:
        """Uploads every file; `grant` is asked anew for each call, since it is renewed. Raises
        nothing for a single file: a file that cannot be sent is in `failed`."""
        if not files.files:
            return Sent()
        tried = await asyncio.gather(*(self._send_one(file, grant) for file in files.files))
        kept = [file for file, why in zip(files.files, tried, strict=True) if not why]
        return Sent(
            tuple(file.name for file in kept),
            sum(file.size for file in kept),
            tuple((file.name, why) for file, why in zip(files.files, tried, strict=True) if why),
        )

    async def _send_one(self, file: CollectedFile, grant: Callable[[], bytes]) -> str:
        """Empty when the file is committed; why not otherwise."""
        async with self._room:
            try:
                digest = await self._digest(file)
            except OSError as error:
                # Raised, it would close all files under the uploads that still read them.
                return type(error).__name__
            backoff = Backoff(
                self._clock, self._limits.retry_seconds, self._limits.retry_seconds_max
            )
            damaged = 0
            give_up = self._clock.monotonic() + self._limits.upload_seconds_max
            while True:
                try:
                    await self._attempt(file, digest, grant())
                    return ""
                except GridError as error:
                    damaged += error.code is Code.FAILED_PRECONDITION
                    if not _may_retry(error) or damaged == _DAMAGED_MAX:
                        return error.message
                    why = error.message
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    why = type(error).__name__
                if self._clock.monotonic() > give_up:
                    return why
                _log.info("upload is tried again", name=file.name, why=why)
                await backoff.pause()

    async def _attempt(self, file: CollectedFile, digest: str, grant: bytes) -> None:
        made = await self._grid.uploads.CreateUpload(
            pb.CreateUploadRequest(
                attempt_grant=grant, filename=file.name, size_bytes=file.size, sha256=digest
            )
        )
        if made.ready:
            return
        await self._put(file, made)
        await AFTER_PUT.hit_async()
        commit = pb.CommitUploadRequest(attempt_grant=grant, artifact_id=made.artifact_id)
        await self._grid.uploads.CommitUpload(commit)

    async def _put(self, file: CollectedFile, made: pb.CreateUploadResponse) -> None:
        headers = {**made.headers, "Content-Length": str(file.size)}
        data = file.read(0, file.size) if file.size <= _INLINE_BYTES else self._chunks(file)
        async with self._http.put(made.upload_url, data=data, headers=headers) as response:
            if response.status not in _OK:
                raise Unavailable(f"the store answered {response.status}")

    async def _chunks(self, file: CollectedFile) -> AsyncIterator[bytes]:
        offset = 0
        while offset < file.size:
            chunk = await asyncio.to_thread(file.read, offset, self._limits.upload_chunk_bytes)
            offset += len(chunk)
            yield chunk

    async def _digest(self, file: CollectedFile) -> str:
        if file.size <= _INLINE_BYTES:
            return hashlib.sha256(file.read(0, file.size)).hexdigest()
        return await asyncio.to_thread(self._digest_all, file)

    def _digest_all(self, file: CollectedFile) -> str:
        digest = hashlib.sha256()
        for chunk in file.chunks(self._limits.upload_chunk_bytes):
            digest.update(chunk)
        return digest.hexdigest()


def _may_retry(error: GridError) -> bool:
    """A limit of the job stays, unless it says when it ends; a grant that has run out is renewed
    by the session."""
    if error.code is Code.RESOURCE_EXHAUSTED:
        return error.retry_after_seconds is not None
    renewable = error.reason == "GRANT_EXPIRED"
    return renewable or error.code in RETRYABLE or error.code is Code.FAILED_PRECONDITION
