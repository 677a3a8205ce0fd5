"""The grid as the daemon calls it: two connections, so that a flood of logs cannot delay a
heartbeat, and one way to try again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as upload_grpc
from junglegrid.logs.v1 import log_ingest_service_pb2_grpc as log_grpc
from junglegrid.nodes.v1 import node_session_service_pb2_grpc as session_grpc

from libs.clock import Clock
from libs.errors import Code, GridError
from libs.rpc import as_bearer, connect
from libs.rpc.client import OPTIONS

T = TypeVar("T")
# The call may succeed when it is made again, and making it again is harmless.
RETRYABLE = frozenset(
    {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.INTERNAL, Code.UNKNOWN,
     Code.RESOURCE_EXHAUSTED, Code.CANCELLED}
)  # fmt: skip
_CALL_SECONDS = 20.0
_PING_IDLE = "grpc.keepalive_permit_without_calls"


class Grid:
    """`credential` opens the session; `token` is the session's, for all other calls."""

    def __init__(self, address: str, ca_file: Path | None, credential: Callable[[], str]) -> None:
        self.token: str | None = None
        # The data connection is idle between jobs, and then needs no pings.
        self._connections = [_connection(address, ca_file, ping=ping) for ping in (True, False)]
        control, data = self._connections
        by_credential = connect(
            address, principal_source=as_bearer(credential), base=control, timeout_seconds=10.0
        )
        by_token = [
            connect(
                address,
                principal_source=as_bearer(lambda: self.token),
                base=base,
                timeout_seconds=_CALL_SECONDS,
            )
            for base in (control, data)
        ]
        # The generated async stubs are typed for the channel of grpc.aio, which ours is.
        self.session: Any = session_grpc.NodeSessionServiceStub(by_credential)
        self.decisions: Any = session_grpc.NodeSessionServiceStub(by_token[0])
        self.logs: Any = log_grpc.LogIngestServiceStub(by_token[1])
        self.uploads: Any = upload_grpc.ArtifactUploadServiceStub(by_token[1])

    async def close(self) -> None:
        """Closes both connections."""
        for connection in self._connections:
            await connection.close()


def _connection(address: str, ca_file: Path | None, *, ping: bool) -> grpc.aio.Channel:
    options = [
        *(option for option in OPTIONS if option[0] != _PING_IDLE),
        (_PING_IDLE, int(ping)),
        # gRPC shares one TCP connection between channels to one address unless it is told not to.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if ca_file is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(ca_file.read_bytes())
    return grpc.aio.secure_channel(address, credentials, options=options)


class Backoff:
    """Pauses that double up to a maximum, with half of each left to chance."""

    def __init__(self, clock: Clock, first_seconds: float, most_seconds: float) -> None:
        self._clock = clock
        self._first = self._next = first_seconds
        self._most = most_seconds

    async def pause(self) -> None:
        """Waits, longer each time. Never under `first_seconds`: that bounds the tries a second."""
        wait = self._first + random.random() * (self._next - self._first)
        self._next = min(self._next * 2, self._most)
        await self._clock.sleep(wait)

    def reset(self) -> None:
        """After a success."""
        self._next = self._first


async def insist(
    call: Callable[[], Awaitable[T]], backoff: Backoff, *, until: Callable[[], bool] = lambda: False
) -> T:
    """Calls until it succeeds, fails for good, or `until` says that it is too late."""
    while True:
        try:
            return await call()
        except GridError as error:
            if error.code not in RETRYABLE or until():
                raise
        await backoff.pause()
