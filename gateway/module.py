"""Builds the gateway from its settings and its peers; the only constructor calls are here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc.aio

from gateway import contracts
from gateway.app import Edge, Gateway, Mounted, Target
from gateway.auth import NAME, Keys
from gateway.builtin import Builtin, Health
from gateway.config import GatewayConfig
from gateway.describe import describe
from gateway.errors import STATUS_BY_CODE, STATUS_BY_REASON
from gateway.middleware import AccessLog, count_unknown, meter
from gateway.transcoder.decode import Decoders
from gateway.transcoder.encode import Encoders
from gateway.transcoder.errors import Statuses
from gateway.transcoder.paths import Template
from gateway.transcoder.rules import Route
from gateway.transcoder.sse import stream_handler
from gateway.transcoder.unary import Handler, Limits, unary_handler
from libs.process import Context, Module
from libs.rpc.interceptors import unforeseen

IDENTITY = "identity"


def build(context: Context) -> Module:
    """The gateway as a module: it serves no RPC, it listens for HTTP."""
    config = context.config(GatewayConfig)
    found = contracts.public_routes()
    parts = contracts.parts()
    peers = {name: context.peers(name) for name in parts}
    statuses = Statuses(STATUS_BY_REASON, STATUS_BY_CODE)
    keys = Keys(peers[IDENTITY], config, context.clock)
    log = AccessLog(config)
    gateway = Gateway(config, keys, statuses, log)
    serve(gateway, found, peers, limits(config))
    health = Health(config, {name: (peers[name], service) for name, service in parts.items()})
    builtin = Builtin(config, health, describe(found, contracts.comments(), statuses))
    serve_builtin(gateway, builtin)
    gateway.mount(mounted(context))
    return Module(name=NAME, parts=(log, keys, Edge(config, gateway)))


def mounted(context: Context) -> Sequence[Mounted]:
    """Handlers of the object store, where it serves its own signed URLs."""
    routes: Sequence[Mounted] = context.objects.http_handlers()
    return routes


def limits(config: GatewayConfig) -> Limits:
    """The settings that the transcoder keeps to."""
    return Limits(
        body_bytes=config.body_bytes_max,
        body_seconds=config.body_seconds,
        call_seconds=config.call_seconds,
        first_event_seconds=config.stream_first_event_seconds,
        heartbeat_seconds=config.stream_heartbeat_seconds,
        write_seconds=config.stream_write_seconds,
        stream_buffer_bytes=config.stream_buffer_bytes,
    )


def serve(
    gateway: Gateway,
    routes: Iterable[Route],
    peers: Mapping[str, grpc.aio.Channel],
    bounds: Limits,
) -> None:
    """Compiles every public route and adds it."""
    decoders, encoders = Decoders(count_unknown), Encoders()
    for route in routes:
        channel = peers[contracts.owner(route)]
        handler: Handler = (
            stream_handler(route, channel, decoders, encoders, bounds, unforeseen)
            if route.streams
            else unary_handler(route, channel, decoders, encoders, bounds)
        )
        target = Target(
            label=route.path,
            handler=handler,
            scopes=route.scopes,
            public=route.public,
            streams=route.streams,
            meter=meter(route.path, route.verb),
        )
        gateway.add(route.verb, route.template, target)


def serve_builtin(gateway: Gateway, builtin: Builtin) -> None:
    """Adds the routes that no service owns."""
    handlers: Mapping[str, Any] = builtin.routes()
    for path, handler in handlers.items():
        target = Target(label=path, handler=handler, public=True, meter=meter(path, "GET"))
        gateway.add("GET", Template.parse(path), target)
