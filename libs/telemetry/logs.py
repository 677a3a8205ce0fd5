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
    _configure(service, logging.getLevelNamesMapping()[level.upper()], json)
    # Libraries use the standard module; theirs go the same way, from warnings up.
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def _configure(service: str, level: int, json: bool | None) -> None:
    global _level  # noqa: PLW0603 - the log configuration belongs to the process
    _level = level
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            _add_service(service),
            # Plain tracebacks: the coloured kind prints local variables, secrets among them.
            structlog.processors.format_exc_info,
            redact,
            _renderer(as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `component=name`; made before `setup` it still follows it."""
    found: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return found


def debugging() -> bool:
    """True when debug lines are wanted; cheaper than asking a logger on a hot path."""
    return _level <= logging.DEBUG


def _renderer(as_json: bool) -> Any:
    if as_json:
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _add_service(service: str) -> Any:
    def add(_: Any, __: str, event: Any) -> Any:
        event.setdefault("service", service)
        return event

    return add


def _add_trace(_: Any, __: str, event: Any) -> Any:
    traceparent = trace.current_traceparent()
    if traceparent is not None:
        event.setdefault("trace_id", trace.trace_id(traceparent))
    return event


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        line = structlog.get_logger(component=record.name)
        line.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


class _Stderr:
    """Writes to whatever stderr is now, so that a redirected stderr is honoured."""

    def __init__(self, *_: object) -> None:
        """Takes the arguments of any logger factory."""

    def msg(self, line: str) -> None:
        sys.stderr.write(line + "\n")

    debug = info = warning = error = critical = exception = log = msg


# Until `setup`: the same safe lines, so that no library default ever prints a secret.
if not structlog.is_configured():
    _configure("grid", logging.INFO, None)
