"""Prometheus metrics, made once per name however often a module asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

M = TypeVar("M", Counter, Gauge, Histogram)
_made: dict[str, Counter | Gauge | Histogram] = {}


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only rises; by custom its name ends in `_total`."""
    return _once(name, Counter, lambda: Counter(name, help, labels, registry=REGISTRY))


def gauge(name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down."""
    return _once(name, Gauge, lambda: Gauge(name, help, labels, registry=REGISTRY))


def histogram(
    name: str,
    help: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = SECONDS,
) -> Histogram:
    """A distribution; the default buckets are seconds from 1 ms to 30 s."""
    return _once(
        name, Histogram, lambda: Histogram(name, help, labels, registry=REGISTRY, buckets=buckets)
    )


def exposition() -> bytes:
    """All metrics of this process in Prometheus text format."""
    return generate_latest(REGISTRY)


def value(name: str, **labels: str) -> float:
    """The present value of one series, 0 when there is none yet; for tests and readiness checks."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def total(name: str, **labels: str) -> float:
    """The sum of all series of `name` whose labels include `labels`."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _once(name: str, kind: type[M], make: Callable[[], M]) -> M:
    found = _made.get(name)
    if found is None:
        found = _made[name] = make()
    if not isinstance(found, kind):
        raise ValueError(f"metric {name} is already a {type(found).__name__}")
    return found
