"""Which failures of an upload are tried again, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as pb

from libs.clock import SystemClock
from libs.errors import (
    FailedPrecondition,
    GridError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from services.node_daemon.collect import CollectedFile, Collection
from services.node_daemon.config import Limits
from services.node_daemon.uploads import Sent, Uploads

LIMITS = Limits(retry_seconds=0.001, retry_seconds_max=0.002, upload_seconds_max=0.2)


class Store:
    """Answers CreateUpload with `ready` once `errors` are used up."""

    def __init__(self, *errors: Callable[[], GridError]) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.grants: list[bytes] = []
        self.uploads = self

    async def CreateUpload(self, request: Any) -> pb.CreateUploadResponse:
        self.calls += 1
        self.grants.append(request.attempt_grant)
        if self.errors:
            error = self.errors[0]
            if len(self.errors) > 1:
                self.errors.pop(0)
            raise error()
        return pb.CreateUploadResponse(ready=True)


class Recovering(Store):
    """Fails once for each error and then works."""

    async def CreateUpload(self, request: Any) -> pb.CreateUploadResponse:
        self.calls += 1
        self.grants.append(request.attempt_grant)
        if self.errors:
            raise self.errors.pop(0)()
        return pb.CreateUploadResponse(ready=True)


async def send(tmp_path: Path, store: Store) -> Sent:
    (tmp_path / "a").write_bytes(b"data")
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    grants = iter(range(1000))
    uploads = Uploads(store, None, SystemClock(), LIMITS)  # type: ignore[arg-type]
    with Collection((CollectedFile("a", 4, fd),)) as files:
        return await uploads.send(files, lambda: b"%d" % next(grants))


def expired() -> GridError:
    return PermissionDenied("expired", reason="GRANT_EXPIRED")


async def test_an_outage_and_an_expired_grant_are_waited_out(tmp_path: Path) -> None:
    store = Recovering(lambda: Unavailable("down"), expired)
    sent = await send(tmp_path, store)
    assert (sent.names, sent.size_bytes, sent.failed) == (("a",), 4, ())
    assert store.grants == [b"0", b"1", b"2"]  # a fresh one each time


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (lambda: PermissionDenied("sealed"), 1),
        (lambda: ResourceExhausted("too many files"), 1),
        (lambda: FailedPrecondition("digest differs"), 3),
    ],
)
async def test_what_will_not_change_is_given_up(
    tmp_path: Path, error: Callable[[], GridError], calls: int
) -> None:
    store = Store(error)
    sent = await send(tmp_path, store)
    assert (sent.names, [name for name, _ in sent.failed]) == ((), ["a"])
    assert store.calls == calls


async def test_an_outage_without_end_is_given_up_in_time(tmp_path: Path) -> None:
    sent = await send(tmp_path, Store(lambda: Unavailable("down")))
    assert sent.failed == (("a", "down"),)
