"""The door for time: the planner, woken by changes, and a slow sweep."""

from __future__ import annotations

from libs.clock import Clock
from libs.process import TaskPart
from libs.wake import Wake
from services.scheduling.config import SchedulingConfig
from services.scheduling.service import PLAN, SchedulingService


class Planning:
    """Fills the planner, then plans whenever something has changed. It starts before the consumer
    does, which feeds it."""

    def __init__(
        self, service: SchedulingService, clock: Clock, wake: Wake, config: SchedulingConfig
    ) -> None:
        self._service = service
        self._clock = clock
        self._wake = wake
        self._sweep_seconds = config.sweep_seconds
        self._task = TaskPart("scheduling.planning", self._run, clock=clock)

    async def start(self) -> None:
        await self._service.load()
        await self._task.start()

    async def stop(self) -> None:
        await self._task.stop()

    async def _run(self) -> None:
        swept = self._clock.monotonic()
        while True:
            while await self._service.place_batch():
                pass
            pause = swept + self._sweep_seconds - self._clock.monotonic()
            if pause <= 0:
                await self._service.sweep()
                swept = self._clock.monotonic()
                continue
            await self._wake.wait(PLAN, pause)
