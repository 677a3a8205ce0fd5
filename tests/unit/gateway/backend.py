"""A zoo and an identity behind a real gRPC socket, and the gateway in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from junglegrid.identity.v1 import identity_internal_service_pb2 as identity_pb
from junglegrid.identity.v1 import identity_internal_service_pb2_grpc as identity_grpc

from gateway.app import Edge, Gateway
from gateway.auth import Keys
from gateway.builtin import Builtin, Health
from gateway.config import GatewayConfig
from gateway.errors import STATUS_BY_CODE, STATUS_BY_REASON
from gateway.middleware import AccessLog
from gateway.module import limits, serve, serve_builtin
from gateway.transcoder.errors import Statuses
from gateway.transcoder.openapi import Comments, Info, document
from gateway.transcoder.rules import routes
from libs.api_key import mint
from libs.clock import Clock, SystemClock
from libs.errors import Unauthenticated
from libs.rpc import (
    InternalAuthenticator,
    Server,
    Signer,
    Verifier,
    as_service,
    connect,
    default_interceptors,
)
from libs.rpc import context as rpc_context
from tests.unit.gateway import zoo

SECRET = b"k" * 32
PEER = "v1"  # what `contracts.owner` makes of gatewaytest.v1


class Identity(identity_grpc.IdentityInternalServiceServicer):
    """Knows keys, counts questions, and tells revocations when a test says so."""

    def __init__(self) -> None:
        self.keys: dict[str, identity_pb.ResolveKeyResponse] = {}
        self.asked = 0
        self.down: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.news: asyncio.Queue[identity_pb.WatchRevocationsResponse] = asyncio.Queue()
        self.watched_after: list[int] = []

    def add(self, *scopes: str, key_id: str = "", expire: float = 0.0) -> str:
        """A new key with these scopes."""
        text = mint().text
        reply = identity_pb.ResolveKeyResponse(
            key_id=key_id or f"key_{len(self.keys)}", workspace_id="ws_1", scopes=scopes
        )
        if expire:
            reply.expire_time.FromNanoseconds(int(expire * 1e9))
        self.keys[text] = reply
        return text

    async def ResolveKey(self, request: Any, context: Any) -> identity_pb.ResolveKeyResponse:
        self.asked += 1
        reply = self.keys.get(request.api_key)
        if self.hold is not None:
            await self.hold.wait()
        if self.down is not None:
            raise self.down
        if reply is None:
            raise Unauthenticated("unknown")
        return reply

    async def WatchRevocations(
        self, request: Any, context: Any
    ) -> AsyncIterator[identity_pb.WatchRevocationsResponse]:
        self.watched_after.append(request.after)
        yield identity_pb.WatchRevocationsResponse(position=request.after)
        while True:
            yield await self.news.get()


class Zoo:
    """Answers with what `replies` says, or with what came in. Keeps the requests and callers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.callers: list[Any] = []
        self.replies: dict[str, Callable[[Any], Any]] = {}
        self.cancelled = asyncio.Event()

    async def unary(self, name: str, request: Any) -> Any:
        self.requests.append(request)
        self.callers.append(rpc_context.principal())
        found = self.replies[name](request)
        return await found if asyncio.iscoroutine(found) else found

    async def stream(self, name: str, request: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        try:
            async for item in self.replies[name](request):
                yield item
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    def register(self, _: Any, server: Any) -> None:
        """What a generated add_ZooServiceServicer_to_server does."""
        service = zoo.service()
        handlers = {method.name: self._handler(method) for method in service.methods}
        server.add_registered_method_handlers(service.full_name, handlers)

    def _handler(self, method: Any) -> Any:
        name = method.name
        codec = {
            "request_deserializer": zoo.message(method.input_type.name).FromString,
            "response_serializer": zoo.message(method.output_type.name).SerializeToString,
        }
        if method.server_streaming:

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                async for item in self.stream(name, request):
                    yield item

            return grpc.unary_stream_rpc_method_handler(stream, **codec)

        async def unary(request: Any, context: Any) -> Any:
            return await self.unary(name, request)

        return grpc.unary_unary_rpc_method_handler(unary, **codec)


@dataclass
class World:
    """All of it, running."""

    zoo: Zoo
    identity: Identity
    server: Server
    keys: Keys
    gateway: Gateway
    edge: Edge
    http: aiohttp.ClientSession
    access: AccessLog
    log: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.edge.port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def ask(
        self, method: str, path: str, *, key: str | None = None, **more: Any
    ) -> tuple[int, Any, Any]:
        """Status, JSON (or text) and headers."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        async with self.http.request(
            method, self.url(path), headers=headers, allow_redirects=False, **more
        ) as reply:
            raw = await reply.read()
            is_json = reply.headers.get("Content-Type", "").startswith("application/json")
            return reply.status, (await reply.json() if raw and is_json else raw), reply.headers


@asynccontextmanager
async def running(
    folder: Path,
    config: GatewayConfig | None = None,
    clock: Clock | None = None,
    *,
    not_running: bool = False,
) -> AsyncIterator[World]:
    """A world on a free port. `not_running`: readiness asks for a part that is not there, too."""
    config = config or GatewayConfig(port=0)
    animals = Zoo()
    identity = Identity()  # type: ignore[abstract] # the rest of identity is not asked here
    address = f"unix:{folder / 'grid.sock'}"
    server = Server(
        address,
        [
            (animals.register, None),
            (identity_grpc.add_IdentityInternalServiceServicer_to_server, identity),
        ],
        default_interceptors(InternalAuthenticator(Verifier(SECRET))),
        tools=True,
        grace_seconds=0.1,
    )
    await server.start()
    channel = connect(address, principal_source=as_service("gateway", Signer(SECRET)))
    statuses = Statuses(STATUS_BY_REASON, STATUS_BY_CODE)
    keys = Keys(channel, config, clock or SystemClock())
    lines: list[bytes] = []
    log = AccessLog(config, lines.append)
    gateway = Gateway(config, keys, statuses, log)
    found = routes([zoo.service()])
    serve(gateway, found, {PEER: channel}, limits(config))
    described = document(found, Comments(zoo.files()), Info("Zoo", "1", "", statuses))
    parts_asked = {
        "zoo": (channel, zoo.service().full_name),
        "other": (channel, "gatewaytest.v1.NobodyService"),
    }
    health = Health(config, parts_asked if not_running else {"zoo": parts_asked["zoo"]})
    serve_builtin(gateway, Builtin(config, health, described))
    edge = Edge(config, gateway)
    parts = (log, keys, edge)
    for part in parts:
        await part.start()
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        try:
            yield World(animals, identity, server, keys, gateway, edge, http, log, lines)
        finally:
            for part in reversed(parts):
                await part.stop()
            await channel.close()
            await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Gives way to the loop until `condition` holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0)
