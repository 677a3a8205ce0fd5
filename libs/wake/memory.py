"""Wake within one process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Channel:
    """Notified and not yet heard, or somebody waiting; never both."""

    notified: bool = False
    waiters: list[asyncio.Future[bool]] = field(default_factory=list)


class MemoryWake:
    """See Wake. Costs a future per wait and nothing while idle."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._stopped = False

    async def start(self) -> None:
        self._stopped = False

    async def stop(self) -> None:
        self._stopped = True
        for channel in self._channels.values():
            for waiter in channel.waiters:
                if not waiter.done():
                    waiter.set_result(False)

    def notify(self, channel: str) -> None:
        found = self._channels.setdefault(channel, _Channel())
        for waiter in found.waiters:
            if not waiter.done():
                waiter.set_result(True)
                return
        found.notified = True

    async def wait(self, channel: str, timeout_seconds: float) -> bool:
        found = self._channels.setdefault(channel, _Channel())
        if found.notified:
            found.notified = False
            return True
        if self._stopped or timeout_seconds <= 0:
            return False
        return await self._wait(found, timeout_seconds)

    async def _wait(self, found: _Channel, timeout_seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        found.waiters.append(waiter)
        timer = loop.call_later(timeout_seconds, _time_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # The hint had reached this waiter, who will not act on it: keep it for the next.
            if waiter.done() and not waiter.cancelled() and waiter.result():
                found.notified = True
            raise
        finally:
            timer.cancel()
            found.waiters.remove(waiter)


def _time_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
