"""What scheduling answers about work of some shape."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.jobs.domain.job import Gpu


@dataclass(frozen=True, slots=True)
class Quote:
    """Where work would run, at what price, and when. Prices are micro-USD per hour of one task;
    `unavailable_code` is empty when something fits."""

    live_candidates: int = 0
    immediate: bool = False
    managed_profiles: int = 0
    price: int = 0
    price_min: int = 0
    price_max: int = 0
    price_ceiling: int = 0
    gpu: Gpu | None = None
    region: str = ""
    tier: str = ""
    gpu_family: str = ""
    wait_seconds_min: int = 0
    wait_seconds_max: int = 0
    start_min: datetime | None = None
    start_max: datetime | None = None
    relaxed: tuple[str, ...] = ()
    unavailable_code: str = ""
    unavailable_reason: str = ""
    simulated: bool = False

    @property
    def fits(self) -> bool:
        """A node that is online, or one that could be made, can take it."""
        return not self.unavailable_code and (self.live_candidates > 0 or self.managed_profiles > 0)
