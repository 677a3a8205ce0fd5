"""Puts a job's inputs under its /workspace before it starts, checked to the last byte."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import aiohttp

from libs.errors import GridError, InvalidRequest, Unavailable
from services.node_daemon.grid import Backoff
from services.node_daemon.runtime.port import Staging

_ROOT = PurePosixPath("/workspace")
# Nothing but these folders is written to before the start.
_FOLDERS = frozenset({"inputs", "scripts"})
_CHUNK_BYTES = 256 * 1024
_GONE = frozenset({400, 401, 403, 404, 410, 413})


@dataclass(frozen=True, slots=True)
class Input:
    """One file. `url` is signed: a secret."""

    mount_path: str
    url: str = field(repr=False)
    size_bytes: int
    sha256: str


class InputFailed(GridError):
    """An input could not be had as it was announced."""

    reason = "INPUT_UNAVAILABLE"


async def stage(
    http: aiohttp.ClientSession, staging: Staging, inputs: Sequence[Input], backoff: Backoff
) -> None:
    """Downloads all inputs at once; raises InputFailed, or InvalidRequest for a bad path."""
    targets = [(each, target(staging, each.mount_path)) for each in inputs]
    await asyncio.gather(*(_fetch(http, each, path, staging, backoff) for each, path in targets))


def target(staging: Staging, mount_path: str) -> Path:
    """Where a mount path is on this machine; it must lie in the inputs or scripts folder."""
    path = PurePosixPath(mount_path)
    parts = (
        path.relative_to(_ROOT) if path.is_absolute() and _ROOT in path.parents else path
    ).parts
    plain = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    if path.is_absolute() and _ROOT not in path.parents:
        plain = False
    if not plain or len(parts) < 2 or parts[0] not in _FOLDERS:
        raise InvalidRequest(f"an input cannot be put at '{mount_path[:200]}'")
    return staging.workspace.joinpath(*parts)


async def _fetch(
    http: aiohttp.ClientSession, wanted: Input, path: Path, staging: Staging, backoff: Backoff
) -> None:
    _folders(path.parent, staging)
    while True:
        try:
            await _fetch_once(http, wanted, path)
            break
        except (Unavailable, aiohttp.ClientError, TimeoutError):
            path.unlink(missing_ok=True)
            await backoff.pause()
    os.chmod(path, 0o644)


async def _fetch_once(http: aiohttp.ClientSession, wanted: Input, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    async with http.get(wanted.url) as response:
        if response.status in _GONE:
            raise InputFailed(f"the store refused {wanted.mount_path} ({response.status})")
        if response.status != 200:
            raise Unavailable(f"the store answered {response.status}")
        with path.open("wb") as file:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                size += len(chunk)
                if size > wanted.size_bytes:
                    raise InputFailed(f"{wanted.mount_path} is longer than it was announced")
                digest.update(chunk)
                file.write(chunk)
    if size != wanted.size_bytes or (wanted.sha256 and digest.hexdigest() != wanted.sha256):
        raise InputFailed(f"{wanted.mount_path} is not what was uploaded: size or digest differ")


def _folders(folder: Path, staging: Staging) -> None:
    """Makes the folders between, which belong to the job as the outer ones do."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir()
        with suppress(PermissionError):
            os.chown(each, staging.uid, staging.gid)
