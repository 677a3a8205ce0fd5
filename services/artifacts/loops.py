"""The door for time."""

from __future__ import annotations

from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from services.artifacts.config import ArtifactsConfig
from services.artifacts.service import Sweeper


def parts(sweeper: Sweeper, clock: Clock, config: ArtifactsConfig) -> Sequence[Part]:
    """One slow loop."""

    async def sweep() -> None:
        while True:
            await clock.sleep(config.sweep_interval_seconds)
            await sweeper.sweep()

    return [TaskPart("artifacts.sweep", sweep, clock=clock)]
