"""The door for time: tries that are due, and retention."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from libs.telemetry import logger
from libs.wake import Wake
from services.webhooks.config import WebhooksConfig
from services.webhooks.service import CHANNEL, Delivery, WebhooksService

_RETENTION_SECONDS = 3600.0
_log = logger("webhooks.loop")


class Dispatcher:
    """Starts tries as they fall due, at most `concurrency` at once. A slow receiver holds one of
    them, not the others."""

    def __init__(
        self, service: WebhooksService, clock: Clock, wake: Wake, config: WebhooksConfig
    ) -> None:
        self._service = service
        self._clock = clock
        self._wake = wake
        self._config = config
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Never returns by itself. Tries under way are dropped with it, and come again."""
        try:
            while True:
                free = self._config.concurrency - len(self._running)
                for claimed in await self._service.claim_due(free):
                    self._begin(claimed)
                await self._wake.wait(CHANNEL, await self._pause())
        finally:
            for task in self._running:
                task.cancel()

    def _begin(self, claimed: Delivery) -> None:
        task = asyncio.create_task(self._deliver(claimed))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.notify(CHANNEL)

    async def _deliver(self, claimed: Delivery) -> None:
        try:
            await self._service.deliver(claimed)
        except Exception:
            # Its claim runs out, and then it is tried again.
            _log.exception("a try broke", delivery_id=claimed.delivery_id)

    async def _pause(self) -> float:
        """Until the next try is due, or the slow sweep; a hint ends it sooner."""
        due = await self._service.next_due()
        if due is None or len(self._running) >= self._config.concurrency:
            return self._config.sweep_seconds
        left = (due - self._clock.now()).total_seconds()
        return min(max(left, 0.0), self._config.sweep_seconds)


def parts(
    service: WebhooksService, clock: Clock, wake: Wake, config: WebhooksConfig
) -> Sequence[Part]:
    """The dispatcher and the retention."""

    async def expire() -> None:
        while True:
            await service.expire()
            await clock.sleep(_RETENTION_SECONDS)

    return [
        TaskPart("webhooks.dispatch", Dispatcher(service, clock, wake, config).run, clock=clock),
        TaskPart("webhooks.retention", expire, clock=clock),
    ]
