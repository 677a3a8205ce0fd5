"""One HTTP request from the first byte to the last: find the route, check the caller, answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from gateway.auth import Keys
from gateway.config import GatewayConfig
from gateway.errors import KeyInUrl, ScopeMissing
from gateway.listener import Connection, Listener, Request
from gateway.middleware import BASE_HEADERS, AccessLog, Cors, Meter, meter
from gateway.transcoder.body import invite
from gateway.transcoder.errors import MethodNotAllowed, RouteNotFound, Statuses
from gateway.transcoder.paths import Match, Router, Template
from gateway.transcoder.sse import StreamCaps
from gateway.transcoder.unary import Exchange, Handler
from libs.errors import Code, GridError
from libs.rpc import Principal
from libs.rpc.context import Scope, accepted_request_id, current, new_request_id
from libs.rpc.interceptors import unforeseen
from libs.telemetry import trace

CLIENT_GONE = 499
_OURS = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_TOO_LATE = (
    "no answer came in time, and the request may have taken effect; look before you repeat it, or "
    "repeat it with the same Idempotency-Key"
)
_NOT_RUNNING = "this grid does not run the part that serves this route; see /readyz"
# gRPC's own words, where no servicer was asked.
_NO_SUCH_METHOD = "Method not found!"
_KEY = re.compile(r"\bjg[en]?_[0-9A-Za-z]{44}\b")
_KEY_NAMES = frozenset({"api_key", "apikey", "access_token", "authorization"})

# (method, path pattern as aiohttp reads it, aiohttp handler)
Mounted = tuple[str, str, Callable[[Any], Awaitable[web.StreamResponse]]]


@dataclass(frozen=True, slots=True)
class Target:
    """What one method of one path leads to. `scopes`: any one is enough."""

    label: str
    handler: Handler
    scopes: frozenset[str] = frozenset()
    public: bool = False
    streams: bool = False
    meter: Meter = field(compare=False, default_factory=lambda: meter("none", "none"))


@dataclass(slots=True)
class Visit(Exchange):
    """An exchange, and what is known so far about its way."""

    path: str
    scope: Scope
    meter: Meter
    caller: str = ""
    streamed: bool = False

    @property
    def where(self) -> str:
        """For the log."""
        return f"{self.request.method} {self.path}"


class Gateway:
    """Routes, callers and answers. `handle` is what the listener calls."""

    def __init__(
        self, config: GatewayConfig, keys: Keys, statuses: Statuses, log: AccessLog
    ) -> None:
        self._keys = keys
        self._statuses = statuses
        self._log = log
        self._cors = Cors(config.cors_origins)
        self._caps = StreamCaps(config.streams_per_key_max)
        self._router: Router[Target] = Router()
        self._mounted = web.UrlDispatcher()
        self._mount_meter = meter("mounted", "any")
        self._no_route = meter("none", "any")

    def add(self, method: str, template: Template, target: Target) -> None:
        """Serves a route of our own."""
        self._router.add(method, template, target)

    def mount(self, routes: Sequence[Mounted]) -> None:
        """Serves another part's aiohttp handlers as they are."""
        for method, path, handler in routes:
            self._mounted.add_route(method, path, handler)

    async def handle(self, request: Request) -> web.StreamResponse:
        """Answers one request; nothing but cancellation leaves this function."""
        begun = time.perf_counter()
        visit = self._arrive(request)
        status = CLIENT_GONE
        try:
            response = await self._answer(visit)
            status = response.status
        except web.HTTPException as answer:  # how mounted aiohttp handlers may answer
            status = answer.status
            raise
        except ConnectionError:
            return web.Response(status=CLIENT_GONE)  # nobody is left to read it
        finally:
            self._leave(visit, status, time.perf_counter() - begun)
        return response

    def refuse(self, error: GridError) -> web.Response:
        """The answer to what could not be read as a request at all."""
        headers = {**BASE_HEADERS, "X-Request-Id": new_request_id()}
        return self._statuses.answer(error, headers)

    def _arrive(self, request: Request) -> Visit:
        raw = request.raw_path
        if raw[:1] != "/":
            raw = request.rel_url.raw_path_qs  # a client that thinks we are a proxy
        path, _, query = raw.partition("?")
        given = request.headers
        scope = Scope(accepted_request_id(given.get("X-Request-Id")))
        # The task of this request has a context of its own, so nothing needs to be reset.
        current.set(scope)
        trace.attach(given.get("traceparent"))
        headers = {**BASE_HEADERS, "X-Request-Id": scope.request_id}
        if self._cors.active:
            headers.update(self._cors.headers(given.get("Origin")))
        return Visit(request, [], query, headers, path, scope, self._no_route)

    async def _answer(self, visit: Visit) -> web.StreamResponse:
        try:
            target = self._find(visit)
            if target is None:
                return await self._to_mounted(visit)
            if not target.public:
                shown = visit.request.headers.get("Authorization")
                caller = self._keys.cached(shown) or await self._keys.principal(shown)
                _admit(visit, target, caller)
            if target.streams:
                return await self._stream(visit, target)
            return await target.handler(visit)
        except GridError as error:
            return self._statuses.answer(_shown(error, visit), visit.headers)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            return self._statuses.answer(unforeseen(visit.where, error), visit.headers)

    def _find(self, visit: Visit) -> Target | None:
        """What serves the request; None leaves it to mounted handlers."""
        match = self._router.find(visit.path)
        if match is None:
            return None
        method = visit.request.method
        found = match.targets.get("GET" if method == "HEAD" else method)
        if found is None:
            if method == "OPTIONS":
                return self._options(match)
            raise MethodNotAllowed(method, visit.path, _allowed(match))
        if visit.query:
            refuse_keys(visit.query)
        target = found[1]
        visit.segments = match.segments
        visit.meter = target.meter
        return target

    async def _stream(self, visit: Visit, target: Target) -> web.StreamResponse:
        connection = visit.request.protocol
        assert isinstance(connection, Connection)
        holder = visit.caller or connection.address
        self._caps.enter(holder)
        visit.streamed = True
        connection.stream = asyncio.current_task()
        try:
            return await target.handler(visit)
        finally:
            connection.stream = None
            self._caps.leave(holder)

    async def _to_mounted(self, visit: Visit) -> web.StreamResponse:
        info = await self._mounted.resolve(visit.request)
        if info.http_exception is not None:
            if isinstance(info.http_exception, web.HTTPMethodNotAllowed):
                allowed = sorted(info.http_exception.allowed_methods)
                raise MethodNotAllowed(visit.request.method, visit.path, allowed)
            raise RouteNotFound(visit.path)
        visit.meter = self._mount_meter
        visit.streamed = True
        assert isinstance(visit.request, Request)
        own = {name: visit.headers[name] for name in ("X-Request-Id", "Server")}
        visit.request.matched(info, own)
        if "Expect" in visit.request.headers:
            await invite(visit.request)
        return await info.handler(visit.request)

    def _options(self, match: Match[Target]) -> Target:
        allowed = ", ".join(_allowed(match))

        async def answer(exchange: Exchange) -> web.StreamResponse:
            headers = {**exchange.headers, "Allow": allowed}
            del headers["Content-Type"]
            if self._cors.active:
                headers.update(self._cors.preflight(allowed))
            return web.Response(status=204, headers=headers)

        return Target(label="options", handler=answer, public=True)

    def _leave(self, visit: Visit, status: int, seconds: float) -> None:
        connection = visit.request.protocol
        address = ""
        if isinstance(connection, Connection):
            connection.busy = False
            address = connection.address
        visit.meter.record(status, seconds, visit.streamed)
        method, request_id = visit.request.method, visit.scope.request_id
        self._log.record(method, visit.path, status, seconds, request_id, visit.caller, address)


def _admit(visit: Visit, target: Target, caller: Principal) -> None:
    visit.caller = caller.subject
    if target.scopes and target.scopes.isdisjoint(caller.scopes):
        raise ScopeMissing(target.scopes)
    visit.scope.principal = caller


def _shown(error: GridError, visit: Visit) -> GridError:
    """Errors that are our fault say an id and nothing else; the transport's own say what to do."""
    if error.code in _OURS and "error_id" not in error.details:
        return unforeseen(visit.where, error)
    if error.code is Code.DEADLINE_EXCEEDED:
        error.message = _TOO_LATE
    elif error.message == _NO_SUCH_METHOD:
        error.message = _NOT_RUNNING
    return error


def _allowed(match: Match[Target]) -> list[str]:
    methods = set(match.targets) | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)


def refuse_keys(query: str) -> None:
    """Raises KeyInUrl when a query carries credentials, whatever its field is called."""
    lowered = query.lower()
    named = any(part.partition("=")[0] in _KEY_NAMES for part in lowered.split("&"))
    if named or ("jg" in query and _KEY.search(unquote(query))):
        raise KeyInUrl


class Edge:
    """The listening socket as a part."""

    name = "edge"

    def __init__(self, config: GatewayConfig, gateway: Gateway) -> None:
        self._config = config
        self._gateway = gateway
        self._runner: web.ServerRunner | None = None
        self._close: Callable[[], None] = lambda: None
        self.port = config.port

    async def start(self) -> None:
        listener = Listener(self._gateway.handle, self._gateway.refuse, self._config)
        self._close = listener.close
        self._runner = web.ServerRunner(listener, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._config.host, self._config.port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self._config.host}:{self._config.port}"
            raise AddressTaken(
                f"cannot listen on {where} ({error.strerror or error}); stop what uses it, "
                "or choose another port with GRID_PORT"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            with suppress(RuntimeError):
                await site.stop()
        self._close()
        await runner.cleanup()


class AddressTaken(OSError):
    """The port cannot be had; the message is fit for a person."""
