"""The door for time: submits that died, and keys that are old."""

from __future__ import annotations

from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from services.jobs.config import JobsConfig
from services.jobs.service import JobsService

_KEYS_SECONDS = 3600.0


def parts(service: JobsService, clock: Clock, config: JobsConfig) -> Sequence[Part]:
    """One slow sweep. Nothing waits for it: a retry of a dead submit takes it over by itself."""

    async def sweep() -> None:
        keys_due = clock.monotonic()
        while True:
            await service.sweep_orphans()
            if clock.monotonic() >= keys_due:
                await service.expire_keys()
                keys_due = clock.monotonic() + _KEYS_SECONDS
            await clock.sleep(config.sweep_seconds)

    return [TaskPart("jobs.sweep", sweep, clock=clock)]
