"""The caller's side: a channel that adds what every call carries and raises GridError.

gRPC's own client interceptors make a task per call; these are plain wrappers around the
multi-callables, in the same order for all four kinds of call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from libs.errors import DeadlineExceeded
from libs.rpc.context import REQUEST_ID_KEY, current, deadline_remaining, request_id
from libs.rpc.principal import METADATA_KEY, Principal, Signer
from libs.rpc.server import KEEPALIVE, MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, is_unix
from libs.rpc.status import from_grpc
from libs.telemetry import trace

Metadata = list[tuple[str, str | bytes]]
PrincipalSource = Callable[[], Metadata]

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again within a second or two, not after gRPC's 20 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def as_service(name: str, signer: Signer) -> PrincipalSource:
    """Calls carry the user that is being served, with `name` as actor, or else `name` itself."""
    own = Principal(kind="service", subject=name)

    def source() -> Metadata:
        scope = current.get()
        caller = scope.principal if scope is not None else None
        on_behalf = caller is not None and caller.kind == "user"
        shown = caller.on_behalf(name) if on_behalf and caller is not None else own
        return [(METADATA_KEY, signer.sign(shown))]

    return source


def as_bearer(text: Callable[[], str | None]) -> PrincipalSource:
    """Calls of a daemon: `authorization: Bearer <text>`, asked for anew on every call."""

    def source() -> Metadata:
        found = text()
        return [("authorization", f"Bearer {found}")] if found else []

    return source


def connect(
    address: str,
    *,
    principal_source: PrincipalSource | None = None,
    timeout_seconds: float = 10.0,
    credentials: grpc.ChannelCredentials | None = None,
    base: grpc.aio.Channel | None = None,
) -> grpc.aio.Channel:
    """A channel to `address` (`unix:<path>` or `host:port`); connects when first used.

    Unary calls get `timeout_seconds`, or what is left of the call being served if that is less;
    streams get no deadline. Several channels may share one connection through `base`, which then
    belongs to the caller; otherwise `close()` closes the connection.
    """
    inner = base or open_connection(address, credentials)
    return Channel(inner, principal_source or list, timeout_seconds, owner=base is None)


def open_connection(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """The bare connection under one or more channels."""
    if is_unix(address):
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    options = [*OPTIONS, *KEEPALIVE]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


class Channel(grpc.aio.Channel):
    """What the generated stubs are built on."""

    def __init__(
        self, inner: grpc.aio.Channel, source: PrincipalSource, timeout: float, *, owner: bool
    ) -> None:
        self._inner = inner
        self._source = source
        self._timeout = timeout
        self._owner = owner

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        if self._owner:
            await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Unary(self._inner.unary_unary(method, *args, **kwargs), self, method)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Stream(self._inner.stream_unary(method, *args, **kwargs), self)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Stream(self._inner.unary_stream(method, *args, **kwargs), self)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Stream(self._inner.stream_stream(method, *args, **kwargs), self)

    def outgoing(self, extra: Any) -> Metadata:
        """Request id, trace, principal, and what the call itself adds."""
        found: Metadata = [(REQUEST_ID_KEY, request_id())]
        traceparent = trace.current_traceparent()
        if traceparent is not None:
            found.append(("traceparent", traceparent))
        found += self._source()
        if extra is not None:
            found += extra
        return found

    def time_limit(self, own: float | None) -> float:
        """The call's own limit or the default, never past the deadline of the call being served."""
        limit = self._timeout if own is None else own
        left = deadline_remaining()
        if left is None:
            return limit
        if left <= 0:
            raise DeadlineExceeded("no time is left for a further call")
        return min(limit, left)


class _Unary:
    def __init__(self, inner: Any, channel: Channel, path: str) -> None:
        self._inner = inner
        self._channel = channel
        self._path = path

    async def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Any = None, **more: Any
    ) -> Any:
        if trace.recording():
            with trace.span(f"call {self._path}"):
                return await self._call(request, timeout, metadata, more)
        return await self._call(request, timeout, metadata, more)

    async def _call(
        self, request: Any, timeout: float | None, metadata: Any, more: dict[str, Any]
    ) -> Any:
        channel = self._channel
        limit = channel.time_limit(timeout)
        try:
            return await self._inner(
                request, timeout=limit, metadata=channel.outgoing(metadata), **more
            )
        except grpc.aio.AioRpcError as failure:
            raise from_grpc(failure) from failure


class _Stream:
    def __init__(self, inner: Any, channel: Channel) -> None:
        self._inner = inner
        self._channel = channel

    def __call__(self, *args: Any, metadata: Any = None, **more: Any) -> _StreamCall:
        return _StreamCall(self._inner(*args, metadata=self._channel.outgoing(metadata), **more))


class _StreamCall:
    """A streaming call that raises GridError; all else is the call underneath."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Any:
        return self._mapped(self._inner).__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._inner:
                yield message
        except grpc.aio.AioRpcError as failure:
            raise from_grpc(failure) from failure

    async def read(self) -> Any:
        """The next reply, or `grpc.aio.EOF`."""
        return await self._mapped(self._inner.read())

    async def write(self, message: Any) -> None:
        """Sends one request."""
        await self._mapped(self._inner.write(message))

    async def done_writing(self) -> None:
        """Says that no more requests follow."""
        await self._mapped(self._inner.done_writing())

    @staticmethod
    async def _mapped(awaitable: Any) -> Any:
        try:
            return await awaitable
        except grpc.aio.AioRpcError as failure:
            raise from_grpc(failure) from failure
