"""The choice of a bus by URL scheme."""

from __future__ import annotations

from pathlib import Path

from libs.bus.port import Bus
from libs.clock import Clock


def connect(url: str, *, clock: Clock) -> Bus:
    """`embedded:///path/bus.db`: a durable log in one file, for one process. Opened by `start`."""
    scheme, _, path = url.partition(":///")
    if scheme == "embedded" and path:
        from libs.bus.embedded import EmbeddedBus

        return EmbeddedBus(Path(path), clock)
    raise ValueError(f"bus url '{url.split('@')[-1]}' is not embedded:///<path>")
