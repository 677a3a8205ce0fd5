"""One listener: an address, the servicers behind it and the interceptors in front of them."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from libs.errors import GridError, PermissionDenied, Unavailable
from libs.process import Servicer
from libs.rpc.context import Scope
from libs.rpc.interceptors import Call, Interceptor, Step, compose
from libs.rpc.methods import Method, describe
from libs.rpc.status import to_grpc
from libs.telemetry import logger

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 64 * 1024
_UNIX = "unix:"
_UNIX_PATH_MAX = 107
_log = logger("rpc")

OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    # Peers may ping as often as our own channels do.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
]


# Over TCP a half-open connection is found in under 20 s; a unix socket needs no pings, and an idle
# grid no wake-ups.
KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


def is_unix(address: str) -> bool:
    """True for `unix:<path>`."""
    return address.startswith(_UNIX)


class AddressInUse(OSError):
    """The address cannot be bound; `strerror` is fit for a person."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EADDRINUSE, message)


class Server:
    """A gRPC listener as a Part.

    `addresses` are `unix:<path>` (made with mode 0600) or `host:port`; port 0 takes a free one,
    see `bound`; `methods` is what it serves. `tools` adds health, reflection and channelz, which
    the node listener must not have. On `stop` no new call is taken, streams end at once with
    UNAVAILABLE so that clients reconnect elsewhere, and unary calls get `grace_seconds`.
    """

    def __init__(  # noqa: PLR0913 - one keyword per trait of a listener
        self,
        addresses: str | Sequence[str],
        servicers: Sequence[Servicer],
        interceptors: Sequence[Interceptor],
        *,
        name: str = "rpc",
        tools: bool = False,
        refuse_unknown: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        grace_seconds: float = 2.0,
    ) -> None:
        self.name = name
        self.bound: list[str] = []
        self.methods: list[Method] = []
        self._addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self._servicers = servicers
        self._interceptors = interceptors
        self._tools = tools
        self._refuse_unknown = refuse_unknown
        self._credentials = credentials
        self._grace = grace_seconds
        self._server: grpc.aio.Server | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def start(self) -> None:
        server = grpc.aio.server(options=self._options())
        names = self._register(server)
        if self._tools:
            from libs.rpc.tools import add_tools

            await add_tools(server, names)
        self.bound = [self._bind(server, address) for address in self._addresses]
        await server.start()
        self._server = server

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._stopping = True
        stopped = asyncio.create_task(server.stop(self._grace))
        await asyncio.sleep(0)
        for task in list(self._streams):
            task.cancel()
        await stopped
        for address in self.bound:
            if is_unix(address):
                Path(address[len(_UNIX) :]).unlink(missing_ok=True)

    def _options(self) -> list[tuple[str, int]]:
        local = all(is_unix(address) for address in self._addresses)
        return OPTIONS if local else [*OPTIONS, *KEEPALIVE]

    def _register(self, server: grpc.aio.Server) -> list[str]:
        registrar = _Registrar(server, self._wrapped)
        for add, servicer in self._servicers:
            add(servicer, registrar)
        if self._refuse_unknown is not None:
            server.add_generic_rpc_handlers((_Refuse(self._refuse_unknown),))
        return registrar.names

    def _wrapped(self, service: str, name: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        method = describe(service, name, handler.request_streaming, handler.response_streaming)
        self.methods.append(method)
        behavior = _behavior(handler)
        inner = _replies(behavior) if handler.response_streaming else _reply(behavior)
        step = compose(self._interceptors, method, inner)
        run = self._run_unary if method.unary else self._run_stream
        return _rebuilt(handler, run(method, step))

    def _run_unary(self, method: Method, step: Step) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await step(Call(method, request, context, Scope("")))
            except GridError as error:
                await context.abort(*to_grpc(error))

        return run

    def _run_stream(self, method: Method, step: Step) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            try:
                return await step(Call(method, request, context, Scope("")))
            except GridError as error:
                await context.abort(*to_grpc(error))
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                task.uncancel()
                ended = Unavailable("the server is stopping; reconnect", retry_after_seconds=1.0)
                await context.abort(*to_grpc(ended))
            finally:
                self._streams.discard(task)

        return run

    def _bind(self, server: grpc.aio.Server, address: str) -> str:
        if is_unix(address):
            _clear_socket(Path(address[len(_UNIX) :]))
        try:
            if self._credentials is not None and not is_unix(address):
                port = server.add_secure_port(address, self._credentials)
            else:
                port = server.add_insecure_port(address)
        except RuntimeError:
            raise AddressInUse(f"cannot listen on {address}: it is taken or not allowed") from None
        if is_unix(address):
            os.chmod(address[len(_UNIX) :], stat.S_IRUSR | stat.S_IWUSR)
            return address
        return f"{address.rpartition(':')[0]}:{port}"


class _Registrar:
    """Stands in for the server in the generated `add_X_to_server`, and wraps each handler."""

    def __init__(
        self,
        server: grpc.aio.Server,
        wrap: Callable[[str, str, Any], grpc.RpcMethodHandler[Any, Any]],
    ) -> None:
        self._server = server
        self._wrap = wrap
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """The registered handlers below come first in gRPC's look-up, so these are not needed."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        wrapped = {name: self._wrap(service, name, each) for name, each in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)
        self.names.append(service)


class _Refuse(grpc.GenericRpcHandler):
    """Answers every method nobody else serves with PERMISSION_DENIED."""

    def __init__(self, message: str) -> None:
        self._error = PermissionDenied(message)

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(*to_grpc(self._error))

        return grpc.stream_stream_rpc_method_handler(refuse)


def _behavior(handler: Any) -> Any:
    return (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )


def _reply(behavior: Any) -> Step:
    async def inner(call: Call) -> Any:
        return await behavior(call.request, call.grpc)

    return inner


def _replies(behavior: Any) -> Step:
    if not inspect.isasyncgenfunction(behavior):
        return _reply(behavior)  # a coroutine that writes to the context itself

    async def inner(call: Call) -> None:
        write = call.grpc.write
        async with aclosing(behavior(call.request, call.grpc)) as replies:
            async for reply in replies:
                await write(reply)

    return inner


def _rebuilt(handler: Any, run: Any) -> grpc.RpcMethodHandler[Any, Any]:
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    rebuilt: grpc.RpcMethodHandler[Any, Any] = make(
        run, handler.request_deserializer, handler.response_serializer
    )
    return rebuilt


def _clear_socket(path: Path) -> None:
    if len(os.fsencode(path)) > _UNIX_PATH_MAX:
        raise AddressInUse(
            f"the socket path {path} is longer than {_UNIX_PATH_MAX} bytes; choose a shorter home"
        )
    if path.is_socket():  # left behind by a process that was killed; the home's lock is ours
        path.unlink()
