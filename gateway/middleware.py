"""What surrounds every request: headers of the answer, CORS, metrics and the access log.

Plain calls in the order of `Gateway.handle`, not a chain of wrapped coroutines: each layer of
those costs more than everything that is done here.
"""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import orjson
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.config import GatewayConfig
from libs.telemetry import metrics
from libs.telemetry.redaction import clean_text

_skipped = metrics.counter(
    "grid_http_unknown_fields_total", "Fields of request bodies that nobody reads.", ("message",)
)

BASE_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "jungle-grid",
}
EXPOSED = "X-Request-Id, Retry-After, Location"
_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id"


def count_unknown(message: str, count: int) -> None:
    """Told by decoders."""
    _skipped.labels(message).inc(count)


class Meter:
    """Counts and times of one route and method, in plain numbers that a scrape reads.

    The metric library takes a lock for each of its numbers; a request would pay for three.
    """

    __slots__ = ("buckets", "counts", "method", "route", "seconds")

    def __init__(self, route: str, method: str) -> None:
        self.route = route
        self.method = method
        self.counts: dict[int, int] = {}
        self.buckets = [0] * (len(metrics.SECONDS) + 1)
        self.seconds = 0.0

    def record(self, status: int, seconds: float, streamed: bool) -> None:
        """One finished request."""
        self.counts[status] = self.counts.get(status, 0) + 1
        if not streamed:
            self.buckets[bisect_left(metrics.SECONDS, seconds)] += 1
            self.seconds += seconds


_meters: dict[tuple[str, str], Meter] = {}


def meter(route: str, method: str) -> Meter:
    """The meter of a route, one per process like every metric."""
    return _meters.setdefault((route, method), Meter(route, method))


class MeterCollector(Collector):
    """Shows the meters as ordinary metrics."""

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "grid_http_requests", "Answered HTTP requests.", labels=("route", "method", "status")
        )
        timed = HistogramMetricFamily(
            "grid_http_seconds",
            "Time to answer, streams not counted.",
            labels=("route", "method"),
        )
        for one in _meters.values():
            for status, count in one.counts.items():
                counted.add_metric((one.route, one.method, str(status)), count)
            sums = list(accumulate(one.buckets))
            if sums[-1]:
                bounds = [*map(str, metrics.SECONDS), "+Inf"]
                shown = list(zip(bounds, sums, strict=True))
                timed.add_metric((one.route, one.method), shown, one.seconds)
        yield counted
        yield timed


metrics.REGISTRY.register(MeterCollector())


class Cors:
    """Cross-origin headers for the configured origins; nothing at all when there are none."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in origins
        self.active = bool(origins)

    def headers(self, origin: str | None) -> dict[str, str]:
        """For an answer to a request with this Origin."""
        if origin is None or not (self._any or origin in self._origins):
            return {"Vary": "Origin"}
        shown = "*" if self._any else origin
        return {
            "Access-Control-Allow-Origin": shown,
            "Access-Control-Expose-Headers": EXPOSED,
            "Vary": "Origin",
        }

    def preflight(self, allowed: str) -> dict[str, str]:
        """Further headers for the answer to OPTIONS."""
        return {
            "Access-Control-Allow-Methods": allowed,
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
        }


class AccessLog:
    """One JSON line per request on standard error: no query, no headers, no body.

    Lines are gathered and written twice a second at most, since a write each would cost more than
    the request's own encoding. A part: `stop` writes what is left.
    """

    name = "access-log"
    _FLUSH_SECONDS = 0.5
    _LINES_MAX = 512

    def __init__(self, config: GatewayConfig, write: Callable[[bytes], Any] | None = None) -> None:
        self._on = config.access_log
        self._write = write or _to_stderr
        self._lines: list[tuple[float, str, str, int, float, str, str, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Nothing to prepare."""

    async def stop(self) -> None:
        self._flush()

    def record(  # noqa: PLR0913 - one argument per column of the line
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        request_id: str,
        caller: str,
        remote: str,
    ) -> None:
        """Keeps the line for one finished request."""
        if not self._on:
            return
        line = (time.time(), method, path, status, seconds, request_id, caller, remote)
        self._lines.append(line)
        if len(self._lines) >= self._LINES_MAX:
            self._flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(b"".join([_formatted(*line) for line in lines]))


def _formatted(  # noqa: PLR0913 - one argument per column of the line
    now: float,
    method: str,
    path: str,
    status: int,
    seconds: float,
    request_id: str,
    caller: str,
    remote: str,
) -> bytes:
    line = {
        "event": "request",
        "service": "gateway",
        "timestamp": datetime.fromtimestamp(now, UTC),
        "method": method,
        # A key does not belong in a path, but a stranger may put one there.
        "path": clean_text(path[:500]) if "jg" in path else path[:500],
        "status": status,
        "millis": round(seconds * 1000, 2),
        "request_id": request_id,
        "caller": caller,
        "remote": remote,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def _to_stderr(data: bytes) -> None:
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
