"""The door for time: renewals are written down, deadlines are kept."""

from __future__ import annotations

from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from services.nodes.service import NodesService


def parts(service: NodesService, clock: Clock) -> Sequence[Part]:
    """Two loops that sleep until there is something to do, and one slow sweep."""

    async def expire() -> None:
        while True:
            await clock.sleep(await service.liveness.expire())

    return [
        TaskPart("nodes.renewals", service.streams.keep_renewals, clock=clock),
        TaskPart("nodes.sweep", service.streams.keep_desired, clock=clock),
        TaskPart("nodes.deadlines", expire, clock=clock, backoff_seconds_max=5.0),
    ]
