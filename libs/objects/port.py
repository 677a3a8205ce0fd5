"""The port, and the choice of an adapter by URL scheme."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

from libs.clock import Clock
from libs.errors import Conflict, FailedPrecondition, NotFound, Unavailable

# Keys under this prefix, and no others, can be written with a signed request.
STAGING = "staging/"
_KEY = re.compile(r"[A-Za-z0-9_=+.-]{1,128}(/[A-Za-z0-9_=+.-]{1,128}){0,15}")
_KEY_CHARACTERS_MAX = 512

# Method, path pattern in aiohttp's syntax, handler.
Route = tuple[str, str, Callable[[Any], Awaitable[Any]]]


class ObjectMissing(NotFound):
    """No object has that key."""


class ObjectChanged(FailedPrecondition):
    """The object is not the one that the caller looked at (another etag)."""


class ObjectExists(Conflict):
    """A final key already holds other bytes."""


class ObjectsUnavailable(Unavailable):
    """The store cannot take or give bytes now; the same call may succeed later."""

    reason = "ARTIFACTS_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that whoever holds it may make, as it is, until `expires_time`. The URL is a
    credential: it goes to its user and nowhere else, and so it is left out of the repr."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str]
    expires_time: datetime


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is stored. `etag` changes with the bytes; `sha256` is hex."""

    size: int
    etag: str
    sha256: str
    content_type: str
    key: str = ""


class Objects(Protocol):
    """A store of immutable bytes. Keys are `part/part/...` of letters, digits and `_=+.-`."""

    async def start(self) -> None:
        """Makes sure that the store can be used."""

    async def stop(self) -> None:
        """Ends what `start` began."""

    def sign_put(
        self,
        key: str,
        *,
        content_type: str,
        size_max: int,
        expires_seconds: float,
        single_use_id: str,
    ) -> SignedRequest:
        """Lets one client put at most `size_max` bytes to a staging `key`. With a `content_type`
        the request has to send it; with "" any is taken. `single_use_id` names this upload: where
        the store can, a second successful PUT with it is refused ("" for no such limit)."""

    def sign_get(
        self, key: str, *, filename: str, content_type: str, expires_seconds: float
    ) -> SignedRequest:
        """Lets a client get `key` as a download called `filename`."""

    async def head(self, key: str) -> ObjectInfo | None:
        """What is under `key`; None when nothing is."""

    async def copy(self, source: str, target: str, *, if_match_etag: str) -> ObjectInfo:
        """Gives `source` the second name `target`, a final key, without moving bytes. Raises
        ObjectMissing, ObjectChanged when `source` has another etag, ObjectExists when `target` has
        other bytes; repeating a copy is harmless. Durable when it returns."""

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], content_type: str
    ) -> ObjectInfo:
        """Stores bytes of our own. Raises ObjectExists when a final `key` has other bytes. Durable
        when it returns; nothing is visible before."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in pieces. Raises ObjectMissing."""

    async def delete(self, key: str) -> None:
        """Removes `key`; harmless when it is not there. Whoever reads it reads on to its end."""

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `after`, in order of keys."""

    def http_handlers(self) -> Sequence[Route]:
        """What the gateway has to serve so that signed requests work; nothing when the store
        serves them itself. Access logs must leave out query strings on these paths."""


def check_key(key: str) -> str:
    """Returns `key`, or raises ValueError: keys are made by our code, never taken from a user."""
    parts = key.split("/")
    if len(key) > _KEY_CHARACTERS_MAX or not _KEY.fullmatch(key) or {".", ".."} & set(parts):
        raise ValueError(f"not an object key: {key[:80]!r}")
    return key


def is_final(key: str) -> bool:
    """True when `key` never changes once it is there."""
    return not key.startswith(STAGING)


def connect(url: str, *, key: bytes, clock: Clock) -> Objects:
    """`file:///folder?base_url=http://host:port`; an absolute folder brings a slash of its own
    (`file:////srv/objects`), as in database URLs. `base_url` is where the gateway serves the signed
    URLs; `key` signs them."""
    scheme, _, rest = url.partition(":///")
    path, _, query = rest.partition("?")
    if scheme == "file" and path:
        from libs.objects.file import FileObjects

        base_url = parse_qs(query).get("base_url", [""])[0]
        if not base_url:
            raise ValueError("objects url needs ?base_url=http://host:port")
        return FileObjects(Path(path), base_url, key=key, clock=clock)
    raise ValueError(f"objects url scheme '{scheme}' is not file")
