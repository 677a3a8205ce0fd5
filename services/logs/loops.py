"""The door for time: retention."""

from __future__ import annotations

from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from services.logs.config import LogsConfig
from services.logs.service import LogsService


def parts(service: LogsService, clock: Clock, config: LogsConfig) -> Sequence[Part]:
    """One slow loop."""

    async def expire() -> None:
        while True:
            await service.expire_logs()
            await clock.sleep(config.retention_interval_seconds)

    return [TaskPart("logs.retention", expire, clock=clock)]
