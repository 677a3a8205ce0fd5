"""What the code below a door may know about the call it serves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from libs.errors import Unauthenticated
from libs.rpc.principal import Principal
from libs.telemetry import trace
from libs.tenancy import Tenant

REQUEST_ID_KEY = "x-request-id"
REQUEST_ID_LETTERS_MAX = 128


@dataclass(slots=True)
class Scope:
    """One call in progress. `deadline` is in `time.monotonic()` seconds; None means none."""

    request_id: str
    principal: Principal | None = None
    deadline: float | None = None
    metadata: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)
    bearer: str | None = field(default=None, repr=False)


current: ContextVar[Scope | None] = ContextVar("rpc_scope", default=None)


def new_request_id() -> str:
    """Unguessable and unique; not a key of anything."""
    return "req_" + os.urandom(12).hex()


def accepted_request_id(text: object) -> str:
    """`text` if it is a harmless request id, else a new one."""
    if (
        isinstance(text, str)
        and 0 < len(text) <= REQUEST_ID_LETTERS_MAX
        and text.isascii()
        and text.isprintable()
        and " " not in text
    ):
        return text
    return new_request_id()


def request_id() -> str:
    """The id of the request being served; a new one outside of any."""
    scope = current.get()
    return scope.request_id if scope is not None else new_request_id()


def principal() -> Principal:
    """The verified caller; raises Unauthenticated when there is none."""
    scope = current.get()
    if scope is None or scope.principal is None:
        raise Unauthenticated("this call needs credentials")
    return scope.principal


def tenant() -> Tenant:
    """The caller's workspace; raises Unauthenticated when the call is not on behalf of one."""
    workspace_id = principal().workspace_id
    if not workspace_id:
        raise Unauthenticated("this call needs a workspace")
    return Tenant(workspace_id)


def deadline_remaining() -> float | None:
    """Seconds left for this call, never below zero; None when there is no deadline."""
    scope = current.get()
    if scope is None or scope.deadline is None:
        return None
    return max(0.0, scope.deadline - time.monotonic())


def metadata(name: str) -> str | bytes | None:
    """Request metadata by its lower-case name; names that end in `-bin` give bytes."""
    scope = current.get()
    return scope.metadata.get(name) if scope is not None else None


def bearer() -> str | None:
    """The bearer text a daemon showed on the node listener, for the servicer to verify."""
    scope = current.get()
    return scope.bearer if scope is not None else None


@contextmanager
def acting(
    principal: Principal | None,
    *,
    request_id: str | None = None,
    timeout_seconds: float | None = None,
    traceparent: str | None = None,
) -> Iterator[Scope]:
    """Runs a block as `principal`: the gateway's way to put an HTTP caller on outgoing calls."""
    scope = Scope(
        request_id=accepted_request_id(request_id),
        principal=principal,
        deadline=None if timeout_seconds is None else time.monotonic() + timeout_seconds,
    )
    traced = trace.attach(traceparent)
    token = current.set(scope)
    try:
        yield scope
    finally:
        current.reset(token)
        trace.detach(traced)
