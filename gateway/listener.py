"""The HTTP listener: caps on connections, and time limits that aiohttp itself does not keep.

aiohttp leaves a connection open that sends nothing, half a head, or one byte a second. Here a head
must be complete within `head_seconds` of its first byte, or of the connection's start.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from gateway.config import GatewayConfig
from gateway.transcoder.errors import UnsupportedMediaType
from libs.errors import GridError, InvalidRequest
from libs.rpc.interceptors import unforeseen
from libs.telemetry import metrics

_refused = metrics.counter(
    "grid_http_connections_refused_total", "Connections closed for a cap or a time limit.", ("why",)
)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
)
_BUSY_BODY = (
    b'{"error":{"code":"UNAVAILABLE","message":"too many connections; try again in a few seconds",'
    b'"details":{}},"code":"UNAVAILABLE","message":"too many connections; try again in a few'
    b' seconds"}'
)


class Connection(web.RequestHandler):
    """One client connection. `busy` while a request of it is being served."""

    __slots__ = ("address", "busy", "counted", "head_since", "listener", "stream")

    def __init__(self, listener: Listener, **settings: Any) -> None:
        super().__init__(listener, **settings)
        self.listener = listener
        self.busy = False
        self.counted = False
        self.head_since: float | None = None
        self.address = ""
        # The task that serves a stream: ended when the client leaves.
        self.stream: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self.listener.admit(self, transport):
            return
        super().connection_made(transport)
        self.listener.expect_head(self)

    def data_received(self, data: bytes) -> None:
        if not self.counted:
            return  # it was answered 503 and is closing
        if not self.busy and self.head_since is None:
            self.listener.expect_head(self)
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP never reaches a handler; it is refused in the contract's shape."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, no other can be sent")
        response = self.listener.refuse(_malformed(status, exc))
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        self.listener.leave(self)
        if self.stream is not None:
            self.stream.cancel()
        if self.counted:
            super().connection_lost(exc)


def _malformed(status: int, error: BaseException | None) -> GridError:
    if isinstance(error, ContentEncodingError):
        return UnsupportedMediaType(
            "this Content-Encoding is not supported; send gzip, deflate or none"
        )
    if status >= 500:
        return unforeseen("http connection", error or RuntimeError("unknown"))
    return InvalidRequest("this is not a well-formed HTTP/1.1 request; check its head and length")


class Request(web.Request):
    """A request that a mounted handler may read its path parameters from."""

    def matched(self, info: web.UrlMappingMatchInfo, headers: Mapping[str, str]) -> None:
        """Attaches what the path matched, and headers that the answer will have."""
        self._match_info = info
        self._cache["answer_headers"] = headers

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """aiohttp's last word before the head is sent, whoever made the response."""
        for name, value in self._cache.get("answer_headers", {}).items():
            response.headers[name] = value


class Listener(web.Server):
    """Makes connections and requests, and ends those that dawdle."""

    def __init__(
        self,
        handle: Callable[[Any], Awaitable[web.StreamResponse]],
        refuse: Callable[[GridError], web.Response],
        config: GatewayConfig,
    ) -> None:
        self.refuse = refuse
        super().__init__(
            handle,
            request_factory=self._request,
            keepalive_timeout=config.keep_alive_seconds,
            access_log=None,
            lingering_time=2.0,
        )
        self._config = config
        self._addresses: Counter[str] = Counter()
        self._waiting: dict[Connection, None] = {}  # in the order in which they began to wait
        self._timer: asyncio.TimerHandle | None = None
        self._total = 0

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def close(self) -> None:
        """Ends open streams, whose clients then connect elsewhere, and the watch over heads."""
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.stream is not None:
                connection.stream.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def admit(self, connection: Connection, transport: asyncio.BaseTransport) -> bool:
        """Counts a connection in, or answers 503 and closes it."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        config = self._config
        full = self._total >= config.connections_max
        if full or self._addresses[address] >= config.connections_per_address_max:
            _refused.labels("total" if full else "address").inc()
            assert isinstance(transport, asyncio.Transport)
            transport.write(_BUSY % (len(_BUSY_BODY), _BUSY_BODY))
            transport.close()
            return False
        connection.address = address
        connection.counted = True
        self._addresses[address] += 1
        self._total += 1
        return True

    def leave(self, connection: Connection) -> None:
        """Counts a connection out."""
        self._waiting.pop(connection, None)
        if not connection.counted:
            return
        self._total -= 1
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]

    def expect_head(self, connection: Connection) -> None:
        """From now on the connection owes a complete head."""
        connection.head_since = self._loop.time()
        self._waiting[connection] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._config.head_seconds, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now, limit = self._loop.time(), self._config.head_seconds
        for connection in list(self._waiting):
            since = connection.head_since
            if since is not None and now - since < limit:
                self._timer = self._loop.call_later(since + limit - now, self._sweep)
                return
            del self._waiting[connection]
            _refused.labels("head").inc()
            if connection.transport is not None:
                connection.transport.abort()

    def _request(
        self, message: Any, payload: Any, connection: Any, writer: Any, task: asyncio.Task[None]
    ) -> Request:
        connection.head_since = None
        connection.busy = True
        self._waiting.pop(connection, None)
        return Request(message, payload, connection, writer, task, self._loop)
