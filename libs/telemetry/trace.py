"""W3C trace context. The identity of a trace is always carried, in one context variable; spans are
recorded only when an exporter has been set up, so that an untraced call costs next to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_FORMAT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_LENGTH = 55
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_tracer: Tracer | None = None


def new_traceparent(sampled: bool = False) -> str:
    """A fresh root: version 00, random ids."""
    bits = os.urandom(24).hex()
    return f"00-{bits[:32]}-{bits[32:]}-{'01' if sampled else '00'}"


def valid(traceparent: str | None) -> bool:
    """True for a well-formed header with non-zero ids; `ff` is no version."""
    return (
        traceparent is not None
        and _FORMAT.match(traceparent) is not None
        and (len(traceparent) == _LENGTH or traceparent[:2] != "00")
        and traceparent[:2] != "ff"
        and traceparent[3:35] != _NO_TRACE
        and traceparent[36:52] != _NO_SPAN
    )


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that all spans of one trace share."""
    return traceparent[3:35]


def current_traceparent() -> str | None:
    """The context that an outgoing call or record should carry."""
    return _current.get()


def attach(traceparent: str | None) -> Token[str | None]:
    """Makes `traceparent` current for this task; a malformed one starts a new trace."""
    return _current.set(traceparent if valid(traceparent) else new_traceparent())


def detach(token: Token[str | None]) -> None:
    """Undoes `attach`."""
    _current.reset(token)


def recording() -> bool:
    """True once an exporter is set up."""
    return _tracer is not None


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """A timed step of the current trace, recorded only with an exporter. No payloads here."""
    if _tracer is None:
        yield
        return
    with _recorded(_tracer, name, attributes):
        yield


@contextmanager
def _recorded(tracer: Tracer, name: str, attributes: dict[str, Any]) -> Iterator[None]:
    from opentelemetry.trace import format_span_id, format_trace_id

    with tracer.start_as_current_span(name, context=_parent(), attributes=attributes) as started:
        context = started.get_span_context()
        token = _current.set(
            f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-01"
        )
        try:
            yield
        finally:
            _current.reset(token)


def _parent() -> Any:
    from opentelemetry import trace as api

    found = _current.get()
    if found is None:
        return None
    # Every request of ours is recorded while an exporter is set up, whatever the caller's flag.
    parent = api.SpanContext(
        trace_id=int(found[3:35], 16),
        span_id=int(found[36:52], 16),
        is_remote=True,
        trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED),
    )
    return api.set_span_in_context(api.NonRecordingSpan(parent))


def export_to(exporter: SpanExporter, service: str, batch: bool = True) -> None:
    """Starts recording spans into `exporter`. The SDK is imported here and only here."""
    global _tracer  # noqa: PLW0603 - one tracer per process, like the log configuration
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    processor = BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    _tracer = provider.get_tracer("junglegrid")


def stop_exporting() -> None:
    """Stops recording; contexts are still carried."""
    global _tracer  # noqa: PLW0603
    _tracer = None
