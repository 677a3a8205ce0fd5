"""Everything that happens to every call on the server, as one list from the outside in.

    request id  ->  metrics  ->  log  ->  errors  ->  deadline  ->  principal  ->  validation

Metrics and log stand outside of errors, so that they see each refusal with its final reason, also
those of the steps below. Unary and streaming calls take the same steps: a streaming method is run
as one coroutine that writes its replies, so a step is written once, around both.

A step is composed once per method, at start; a call pays for plain function calls only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc.aio

from libs.errors import (
    Code,
    Conflict,
    DeadlineExceeded,
    GridError,
    Internal,
    StaleWrite,
)
from libs.rpc import context
from libs.rpc.authenticate import Authenticator
from libs.rpc.context import REQUEST_ID_KEY, Scope
from libs.rpc.meter import meter as meter_of
from libs.rpc.methods import Method
from libs.rpc.validate import check
from libs.telemetry import debugging, logger, trace

_log = logger("rpc")
_OURS = {Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.DATA_LOSS}


@dataclass(slots=True)
class Call:
    """One call on its way through the list. `request` is an iterator when the client streams."""

    method: Method
    request: Any
    grpc: grpc.aio.ServicerContext[Any, Any]
    scope: Scope


Step = Callable[[Call], Awaitable[Any]]
Interceptor = Callable[[Method, Step], Step]


def default_interceptors(
    authenticator: Authenticator, *, unary_deadline_seconds: float = 30.0
) -> list[Interceptor]:
    """The list, outermost first."""
    return [
        request_id,
        measure,
        log,
        errors,
        deadline(unary_deadline_seconds),
        principal(authenticator),
        validation,
    ]


def compose(interceptors: Sequence[Interceptor], method: Method, inner: Step) -> Step:
    """`inner` with all interceptors around it."""
    step = inner
    for interceptor in reversed(interceptors):
        step = interceptor(method, step)
    return step


def request_id(method: Method, inner: Step) -> Step:
    """Gives the call its scope: metadata, request id, trace."""

    async def step(call: Call) -> Any:
        metadata = call.scope.metadata = dict(call.grpc.invocation_metadata() or ())
        call.scope.request_id = context.accepted_request_id(metadata.get(REQUEST_ID_KEY))
        context.current.set(call.scope)
        traceparent = metadata.get("traceparent")
        trace.attach(traceparent if isinstance(traceparent, str) else None)
        if not trace.recording():
            return await inner(call)
        with trace.span(method.path, request_id=call.scope.request_id):
            return await inner(call)

    return step


def measure(method: Method, inner: Step) -> Step:
    """Counts calls by final code, and times the unary ones."""
    meter = meter_of(method.service, method.name)
    timed = method.unary

    async def step(call: Call) -> Any:
        begun = time.perf_counter()
        meter.in_flight += 1
        code = "CANCELLED"
        try:
            reply = await inner(call)
            code = "OK"
        except GridError as error:
            code = error.code.name
            raise
        finally:
            meter.in_flight -= 1
            meter.calls[code] += 1
            if timed:
                meter.observe(time.perf_counter() - begun)
        return reply

    return step


def log(method: Method, inner: Step) -> Step:
    """One line per call at debug; failures that are ours at warning. Never a payload."""
    path = method.path

    async def step(call: Call) -> Any:
        begun = time.perf_counter()
        try:
            reply = await inner(call)
        except GridError as error:
            write = _log.warning if error.code in _OURS else _log.debug
            write(
                "call failed",
                method=path,
                code=error.code.name,
                reason=error.reason,
                error=error.message,
                **_about(call, begun),
            )
            raise
        if debugging():
            _log.debug("call", method=path, **_about(call, begun))
        return reply

    return step


def errors(method: Method, inner: Step) -> Step:
    """Every failure becomes a GridError; what nobody foresaw shows an error id only."""

    async def step(call: Call) -> Any:
        try:
            return await inner(call)
        except (GridError, asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except StaleWrite:
            raise Conflict(
                "this was changed by someone else at the same time; try again",
                retry_after_seconds=0.1,
            ) from None
        except Exception as error:
            raise unforeseen(method.path, error) from None

    return step


def unforeseen(where: str, error: BaseException) -> Internal:
    """Logs `error` in full under a new id, and gives the error that names only the id."""
    error_id = "err_" + os.urandom(8).hex()
    _log.error("unforeseen error", where=where, error_id=error_id, exc_info=error)
    return Internal(
        f"internal error {error_id}; the operator finds it in the log under this id",
        details={"error_id": error_id},
    )


def deadline(unary_seconds: float) -> Interceptor:
    """Refuses calls past their deadline, and gives one to unary calls that came without."""

    def interceptor(method: Method, inner: Step) -> Step:
        async def step(call: Call) -> Any:
            left = cast("float | None", call.grpc.time_remaining())  # the stubs forget the None
            if left is not None:
                if left <= 0:
                    raise DeadlineExceeded("the deadline had passed when the call arrived")
                # gRPC itself cancels the task when a deadline that the caller set runs out.
                call.scope.deadline = time.monotonic() + left
                return await inner(call)
            if not method.unary:
                return await inner(call)
            call.scope.deadline = time.monotonic() + unary_seconds
            return await _limited(inner, call, unary_seconds)

        return step

    return interceptor


async def _limited(inner: Step, call: Call, seconds: float) -> Any:
    async with asyncio.timeout(seconds) as limit:
        try:
            return await inner(call)
        except asyncio.CancelledError:
            if limit.expired():
                raise DeadlineExceeded(f"no answer within {seconds:g} s") from None
            raise


def principal(authenticator: Authenticator) -> Interceptor:
    """Verifies the caller and the method's policy."""

    def interceptor(method: Method, inner: Step) -> Step:
        async def step(call: Call) -> Any:
            await authenticator.authenticate(method, call.scope)
            return await inner(call)

        return step

    return interceptor


def validation(method: Method, inner: Step) -> Step:
    """Enforces field rules, for methods that have any and do not report them themselves."""
    if not method.enforce:
        return inner

    async def step(call: Call) -> Any:
        check(call.request)
        return await inner(call)

    return step


def _about(call: Call, begun: float) -> dict[str, Any]:
    caller = call.scope.principal
    return {
        "request_id": call.scope.request_id,
        "caller": f"{caller.kind}:{caller.subject}" if caller is not None else None,
        "actor": caller.actor if caller is not None else None,
        "millis": round((time.perf_counter() - begun) * 1000, 2),
    }
