"""One request, one reply: the handler of a route whose method does not stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
from aiohttp import web

from gateway.transcoder import body as bodies
from gateway.transcoder.bind import Binder
from gateway.transcoder.decode import Decoders, new_message
from gateway.transcoder.encode import Encode, Encoders, dumps
from gateway.transcoder.errors import as_sent
from gateway.transcoder.rules import Route
from libs.errors import GridError


@dataclass(frozen=True, slots=True)
class Limits:
    """What every route keeps to. Sizes in bytes, times in seconds."""

    body_bytes: int = 1024 * 1024
    body_seconds: float = 10.0
    call_seconds: float = 30.0
    first_event_seconds: float = 2.0
    heartbeat_seconds: float = 15.0
    write_seconds: float = 5.0
    stream_buffer_bytes: int = 64 * 1024


@dataclass(slots=True)
class Exchange:
    """One HTTP request on its way through a handler. `headers` are for the answer."""

    request: web.Request
    segments: list[str]
    query: str
    headers: dict[str, str]


Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]


def unary_handler(
    route: Route,
    channel: grpc.aio.Channel,
    decoders: Decoders,
    encoders: Encoders,
    limits: Limits,
) -> Handler:
    """Compiles the handler. The channel's calls must raise GridError."""
    method = route.method
    bind = Binder(route, decoders)
    call: Any = channel.unary_unary(
        route.rpc,
        request_serializer=new_message(method.input_type).SerializeToString,  # type: ignore[attr-defined]
        response_deserializer=new_message(method.output_type).FromString,  # type: ignore[attr-defined]
    )
    encode = response_encoder(route, encoders)
    limit = route.body_bytes_max or limits.body_bytes
    body_seconds, call_seconds = limits.body_seconds, limits.call_seconds
    reads_body, body_field, status = bind.reads_body, route.body.strip("*"), route.success_status
    headers = {field.name: header for header, field in route.header_fields.items()}

    async def handle(exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        body = await bodies.read(request, limit, body_seconds) if reads_body else b""
        message = bind(request, exchange.segments, exchange.query, body)
        try:
            reply = await call(message, timeout=call_seconds)
        except GridError as error:
            raise as_sent(error, body_field, headers) from None
        return web.Response(body=dumps(encode(reply)), status=status, headers=exchange.headers)

    return handle


def response_encoder(route: Route, encoders: Encoders) -> Encode:
    """Encodes the reply, or the one field of it that response_body names."""
    output = route.method.output_type
    if route.response_body:
        return encoders.of_field(output.fields_by_name[route.response_body])
    return encoders.of(output)
