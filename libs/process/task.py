"""A background task that is kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from libs.clock import Clock, SystemClock
from libs.telemetry import logger, metrics

_log = logger("process")
_crashes = metrics.counter(
    "grid_task_crashes_total", "Crashes of supervised background tasks.", ("task",)
)


class TaskPart:
    """Runs `work` until `stop`. A crash is logged, counted, and followed by a new run after a
    pause that doubles up to `backoff_seconds_max`; a run that lasted longer than that resets it.
    Work that returns is finished and is not run again.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        clock: Clock | None = None,
        backoff_seconds: float = 0.1,
        backoff_seconds_max: float = 30.0,
    ) -> None:
        self.name = name
        self._work = work
        self._clock = clock or SystemClock()
        self._backoff = backoff_seconds
        self._backoff_max = backoff_seconds_max
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name=self.name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])

    async def _supervise(self) -> None:
        pause = self._backoff
        while True:
            begun = self._clock.monotonic()
            try:
                await self._work()
                return
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                # Else something that the work awaited was cancelled by others (a call of gRPC,
                # say): a crash like any, or the task would end without a word.
                if self._clock.monotonic() - begun > self._backoff_max:
                    pause = self._backoff
                _crashes.labels(self.name).inc()
                _log.exception("task crashed", task=self.name, restart_in_seconds=pause)
            await self._clock.sleep(pause)
            pause = min(pause * 2, self._backoff_max)


def _is_cancelled() -> bool:
    """Whether somebody has asked the current task itself to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
