"""The door for time: holds that run out, at the exact moment, and what was left over, slowly."""

from __future__ import annotations

from collections.abc import Sequence

from libs.clock import Clock
from libs.process import Part, TaskPart
from libs.wake import Wake
from services.billing.config import BillingConfig
from services.billing.service import METERS, BillingService


def parts(
    service: BillingService, clock: Clock, wake: Wake, config: BillingConfig
) -> Sequence[Part]:
    """One loop for both: it sleeps until the next hold runs out, a sooner one is told, or the
    sweep is due."""

    async def meters() -> None:
        swept = clock.monotonic() - config.sweep_seconds
        while True:
            due = await service.exhaust()
            if clock.monotonic() - swept >= config.sweep_seconds:
                await service.sweep()
                swept = clock.monotonic()
            pause = swept + config.sweep_seconds - clock.monotonic()
            if due is not None:
                pause = min(pause, (due - clock.now()).total_seconds())
            await wake.wait(METERS, max(pause, 0.0))

    return [TaskPart("billing.meters", meters, clock=clock)]
