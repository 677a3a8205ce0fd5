"""Structured logs: one JSON object a line for machines, one readable line on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from libs.telemetry import trace
from libs.telemetry.redaction import redact

_level = logging.INFO


def setup(service: str, level: str = "info", json: bool | None = None) -> None:
    """Sends logs of this process to stderr. `json=None` picks JSON unless stderr is a terminal."""
    global _level  # noqa: PLW0603 - the log configuration belongs to the process
    as_json = not sys.stderr.isatty() if json is None else json
    number = logging.getLevelNamesMapping()[level.upper()]
    _level = number
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _add_service(service), redact, _renderer(as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries use the standard module; theirs go the same way, from warnings up.
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `component=name`; made before `setup` it still follows it."""
    found: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return found


def debugging() -> bool:
    """True when debug lines are wanted; cheaper than asking a logger on a hot path."""
    return _level <= logging.DEBUG


def _renderer(as_json: bool) -> Any:
    if as_json:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _add_service(service: str) -> Any:
    def add(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("service", service)
        return event

    return add


def _add_trace(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    traceparent = trace.current_traceparent()
    if traceparent is not None:
        event.setdefault("trace_id", trace.trace_id(traceparent))
    return event


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        line = structlog.get_logger(component=record.name)
        line.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
