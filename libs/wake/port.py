"""The port, and the choice of an adapter by URL."""

from __future__ import annotations

from typing import Protocol


class Wake(Protocol):
    """Named hints, coalesced."""

    async def start(self) -> None:
        """Makes the channels of this process reachable."""

    async def stop(self) -> None:
        """Wakes every waiter, as if its time were up."""

    def notify(self, channel: str) -> None:
        """Wakes whoever waits on `channel`, or the next who will. Only from the event loop."""

    async def wait(self, channel: str, timeout_seconds: float) -> bool:
        """True when `channel` was notified since the last wait on it returned True, otherwise False
        after `timeout_seconds`. Any number of notifications in between count as one, and a
        notification while nobody waits is kept for the next wait. One waiter per channel and
        process: with more, one of them gets it."""


def connect(url: str) -> Wake:
    """`memory://`: within this process."""
    if url == "memory://":
        from libs.wake.memory import MemoryWake

        return MemoryWake()
    raise ValueError(f"wake url '{url.split('@')[-1]}' is not memory://")
