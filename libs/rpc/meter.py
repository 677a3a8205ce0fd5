"""Call counts and times, kept in plain numbers by the loop's thread and shown to Prometheus when it
asks. The library's own counters take a lock each; six a call were a tenth of a call's cost."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from libs.telemetry.metrics import REGISTRY, SECONDS

LABELS = ("service", "method")


class Meter:
    """The numbers of one method. `seconds` is filled for unary methods only: the length of a stream
    says nothing about the server."""

    __slots__ = ("buckets", "calls", "in_flight", "method", "seconds", "service")

    def __init__(self, service: str, method: str) -> None:
        self.service = service
        self.method = method
        self.calls: dict[str, int] = defaultdict(int)
        self.in_flight = 0
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one unary call into its bucket."""
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds


_meters: dict[tuple[str, str], Meter] = {}


def meter(service: str, method: str) -> Meter:
    """The one meter of that method in this process."""
    return _meters.setdefault((service, method), Meter(service, method))


class _Collector:
    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        calls = CounterMetricFamily(
            "grid_rpc_server_calls", "Finished calls.", labels=(*LABELS, "code")
        )
        in_flight = GaugeMetricFamily(
            "grid_rpc_server_in_flight", "Calls being served.", labels=LABELS
        )
        seconds = HistogramMetricFamily(
            "grid_rpc_server_seconds", "Time of unary calls in the server.", labels=LABELS
        )
        for each in list(_meters.values()):
            labels = (each.service, each.method)
            for code, count in list(each.calls.items()):
                calls.add_metric((*labels, code), count)
            in_flight.add_metric(labels, each.in_flight)
            seconds.add_metric(labels, _cumulative(each.buckets), each.seconds)
        yield from (calls, in_flight, seconds)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, SECONDS), "+Inf"), buckets, strict=True):
        total += count
        found.append((bound, total))
    return found


REGISTRY.register(_Collector())
