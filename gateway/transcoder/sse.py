"""A server stream as text/event-stream.

One task reads the gRPC stream and serialises each event once; the handler writes whatever has
gathered in one piece. Between the two lies a bounded buffer: when the reader of the HTTP answer
is slow the buffer fills, the gRPC stream is no longer read, and its own flow control holds the
service back. A reader that takes nothing for `write_seconds` is cut off.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc.aio
import orjson
from aiohttp import web

from gateway.transcoder import body as bodies
from gateway.transcoder.bind import Binder
from gateway.transcoder.decode import Decoders, new_message
from gateway.transcoder.encode import Encoders, dumps
from gateway.transcoder.errors import StreamLimit, as_sent, shape
from gateway.transcoder.rules import Route
from gateway.transcoder.unary import Exchange, Handler, Limits
from libs.errors import GridError

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
_BEAT = b": keep-alive\n\n"

# Turns what the call raised into an error that may be shown.
Foresee = Callable[[str, BaseException], GridError]


class StreamCaps:
    """Counts open streams per caller and refuses those over the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    def enter(self, caller: str) -> None:
        """Raises StreamLimit; each success needs one `leave`."""
        if self._open[caller] >= self._limit:
            raise StreamLimit(
                f"this key has {self._limit} open streams, the most allowed; close one first",
                details={"limit": self._limit},
                retry_after_seconds=5.0,
            )
        self._open[caller] += 1

    def leave(self, caller: str) -> None:
        """Gives one back."""
        self._open[caller] -= 1
        if self._open[caller] <= 0:
            del self._open[caller]

    def open(self) -> int:
        """Streams open now, of all callers."""
        return self._open.total()


def stream_handler(
    route: Route,
    channel: grpc.aio.Channel,
    decoders: Decoders,
    encoders: Encoders,
    limits: Limits,
    foresee: Foresee,
) -> Handler:
    """Compiles the handler of a server-streaming route."""
    method = route.method
    bind = Binder(route, decoders)
    open_call: Any = channel.unary_stream(
        route.rpc,
        request_serializer=new_message(method.input_type).SerializeToString,  # type: ignore[attr-defined]
        response_deserializer=new_message(method.output_type).FromString,  # type: ignore[attr-defined]
    )
    frame = event_framer(route, encoders)
    opening = f"retry: {route.retry_millis}\n\n".encode() if route.retry_millis else b""
    limit = route.body_bytes_max or limits.body_bytes
    body_field = route.body.strip("*")
    headers = {field.name: header for header, field in route.header_fields.items()}

    async def handle(exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        body = await bodies.read(request, limit, limits.body_seconds) if bind.reads_body else b""
        message = bind(request, exchange.segments, exchange.query, body)
        response = web.StreamResponse(headers={**exchange.headers, **HEADERS})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        call = open_call(message)
        pump = _Pump(call, frame, limits, route.rpc, foresee)
        try:
            await pump.first()
            if pump.error is not None and not pump.has_output:
                raise as_sent(pump.error, body_field, headers)
            await _send(request, response, pump, opening, limits)
        finally:
            await pump.close()
        return response

    return handle


def event_framer(route: Route, encoders: Encoders) -> Callable[[Any], bytes]:
    """One reply message to the bytes of one event; empty for a message with no case set."""
    oneof = route.method.output_type.oneofs_by_name[route.event_oneof]
    cases = {
        field.name: (f"event: {field.name}\ndata: ".encode(), encoders.of(field.message_type))
        for field in oneof.fields
        if field.message_type is not None
    }
    oneof_name, id_field = route.event_oneof, route.id_field

    def frame(message: Any) -> bytes:
        case = message.WhichOneof(oneof_name)
        found = cases.get(case)
        if found is None:
            return b""
        head, encode = found
        identity = getattr(message, id_field) if id_field else None
        data = dumps(encode(getattr(message, case)))
        if not identity:
            return b"%b%b\n\n" % (head, data)
        return b"id: %b\n%b%b\n\n" % (_one_line(str(identity)), head, data)

    return frame


def _one_line(text: str) -> bytes:
    return text.replace("\n", " ").replace("\r", " ").replace("\0", "").encode()


class _Pump:
    """Reads the call into a bounded buffer of framed events."""

    def __init__(
        self,
        call: Any,
        frame: Callable[[Any], bytes],
        limits: Limits,
        where: str,
        foresee: Foresee,
    ) -> None:
        self._call = call
        self._frame = frame
        self._limits = limits
        self._where = where
        self._foresee = foresee
        self._ready: list[bytes] = []
        self._size = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.error: GridError | None = None
        self.ended = False
        self._task = asyncio.create_task(self._run())

    @property
    def has_output(self) -> bool:
        """Some event waits to be written."""
        return bool(self._ready)

    async def first(self) -> None:
        """Waits a little for the first event or error, so that an early error is a plain answer."""
        await self.wait(self._limits.first_event_seconds)

    async def wait(self, seconds: float) -> bool:
        """Until there is something to write, or the end; False when time ran out first."""
        if self._something.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> bytes:
        """All that waits, as one piece."""
        data = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        self._size = 0
        self._room.set()
        if not self.ended:
            self._something.clear()
        return data

    async def close(self) -> None:
        """Cancels the call; whoever serves it notices at once."""
        self._call.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._put(self._frame(message))
                if self._size > self._limits.stream_buffer_bytes:
                    self._room.clear()
                    await self._room.wait()
        except GridError as error:
            self.error = error
        except Exception as error:
            self.error = self._foresee(self._where, error)
        finally:
            self.ended = True
            self._something.set()

    def _put(self, event: bytes) -> None:
        if event:
            self._ready.append(event)
            self._size += len(event)
            self._something.set()


async def _send(
    request: web.BaseRequest,
    response: web.StreamResponse,
    pump: _Pump,
    opening: bytes,
    limits: Limits,
) -> None:
    """Writes until the stream ends, fails, or the client is gone or too slow."""
    try:
        if request.version >= (1, 1):
            response.enable_chunked_encoding()
        await response.prepare(request)
        _bound_buffer(request, limits.stream_buffer_bytes)
        if opening:
            await response.write(opening)
        while not (pump.ended and not pump.has_output):
            # A beat says that the stream is alive whatever the events of the service say.
            arrived = await pump.wait(limits.heartbeat_seconds)
            await _write(request, response, pump.take() if arrived else _BEAT, limits)
        if pump.error is not None:
            await _write(request, response, _error_event(pump.error), limits)
        await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # the reader has gone; closing the pump is all that is left to do


def _bound_buffer(request: web.BaseRequest, size: int) -> None:
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=size)


async def _write(
    request: web.BaseRequest, response: web.StreamResponse, data: bytes, limits: Limits
) -> None:
    if not data:
        return
    async with asyncio.timeout(limits.write_seconds):
        await response.write(data)
        await request.writer.drain()


def _error_event(error: GridError) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps(shape(error), default=str)
