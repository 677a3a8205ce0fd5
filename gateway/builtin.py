"""Routes that no service owns: health, readiness, metrics, the API's description, the root."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import grpc.aio
import orjson
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import docs_page
from gateway.config import GatewayConfig
from gateway.listener import Connection
from gateway.transcoder.unary import Exchange, Handler
from libs.errors import GridError, NotFound, PermissionDenied
from libs.telemetry import metrics

VERSION = "0.1.0"


class MetricsRefused(PermissionDenied):
    """Metrics are for the operator."""

    def __init__(self) -> None:
        super().__init__(
            "metrics are served to this machine only; set gateway.metrics_token and send it as "
            "'Authorization: Bearer <token>'"
        )


class Health:
    """Asks the parts of the grid how they are. `parts`: name -> (channel, service to ask about)."""

    def __init__(
        self, config: GatewayConfig, parts: Mapping[str, tuple[grpc.aio.Channel, str]]
    ) -> None:
        self._seconds = config.ready_seconds
        self._parts: dict[str, tuple[Any, Any]] = {
            name: (
                health_pb2_grpc.HealthStub(channel),
                health_pb2.HealthCheckRequest(service=service),
            )
            for name, (channel, service) in parts.items()
        }

    async def ask(self) -> list[dict[str, Any]]:
        """One line per part, all asked at the same time."""
        return list(await asyncio.gather(*(self._one(name) for name in sorted(self._parts))))

    async def _one(self, name: str) -> dict[str, Any]:
        stub, request = self._parts[name]
        try:
            reply = await stub.Check(request, timeout=self._seconds)
        except NotFound:
            return {"name": name, "ready": False, "detail": "not running"}
        except GridError as error:
            return {"name": name, "ready": False, "detail": error.message}
        ready = reply.status == health_pb2.HealthCheckResponse.SERVING
        return {"name": name, "ready": ready, "detail": "" if ready else "not serving"}


class Builtin:
    """Handlers of the routes above. `document` is the OpenAPI description."""

    def __init__(
        self,
        config: GatewayConfig,
        health: Health,
        document: Mapping[str, Any],
    ) -> None:
        self._config = config
        self._health = health
        self._document = orjson.dumps(document)
        self._page = docs_page.render(document)

    async def healthz(self, exchange: Exchange) -> web.StreamResponse:
        """The process answers."""
        return _json(exchange, {"ok": True, "service": "jungle-grid", "version": VERSION})

    async def readyz(self, exchange: Exchange) -> web.StreamResponse:
        """Every service behind the public routes answers."""
        parts = await self._health.ask()
        ready = all(part["ready"] for part in parts)
        return _json(exchange, {"ready": ready, "parts": parts}, 200 if ready else 503)

    async def metrics(self, exchange: Exchange) -> web.StreamResponse:
        """Prometheus text."""
        self._check_operator(exchange.request)
        headers = {**exchange.headers, "Content-Type": metrics.CONTENT_TYPE}
        return web.Response(body=metrics.exposition(), headers=headers)

    async def openapi(self, exchange: Exchange) -> web.StreamResponse:
        """The OpenAPI document."""
        headers = {**exchange.headers, "Cache-Control": "public, max-age=60"}
        return web.Response(body=self._document, headers=headers)

    async def docs(self, exchange: Exchange) -> web.StreamResponse:
        """The document as a page. It has no script, loads nothing, and may not be framed."""
        headers = {
            **exchange.headers,
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "public, max-age=60",
            "Content-Security-Policy": docs_page.policy(),
            "Referrer-Policy": "no-referrer",
        }
        return web.Response(body=self._page, headers=headers)

    async def root(self, exchange: Exchange) -> web.StreamResponse:
        """People are sent to the docs, programs get the places to go to."""
        if "text/html" in exchange.request.headers.get("Accept", ""):
            headers = {**exchange.headers, "Location": "/docs"}
            return web.Response(status=302, headers=headers)
        places = {"docs": "/docs", "openapi": "/openapi.json", "api": "/v1", "health": "/healthz"}
        return _json(exchange, {"service": "jungle-grid", "version": VERSION, **places})

    def routes(self) -> dict[str, Handler]:
        """Path to handler; all of them are open and answer GET."""
        return {
            "/": self.root,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/docs": self.docs,
        }

    def _check_operator(self, request: web.BaseRequest) -> None:
        token = self._config.metrics_token
        if token:
            shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(shown.encode(), token.encode()):
                raise MetricsRefused
            return
        connection = request.protocol
        if not (isinstance(connection, Connection) and _is_loopback(connection.address)):
            raise MetricsRefused


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _json(exchange: Exchange, value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), headers=exchange.headers)
