"""Settings of the jobs service; section `[jobs]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB = 1024**2
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """Limits, defaults and intervals. Prices are micro-USD per hour, memory and disk are bytes."""

    # strict: work that needs no GPU, or does not say, is refused; allow: it runs on CPUs.
    cpu_policy: Literal["strict", "allow"] = "strict"
    # Programs that may not run here; compared with the words of image and command.
    screening_blocked_words: tuple[str, ...] = (
        "xmrig",
        "ethminer",
        "nbminer",
        "lolminer",
        "phoenixminer",
        "gminer",
        "teamredminer",
        "cgminer",
        "nicehash",
    )

    cpu_millis_default: int = 1000
    memory_bytes_default: int = GIB
    disk_bytes_default: int = GIB
    timeout_seconds_default: int = 3600
    log_bytes_max: int = 64 * MIB

    # What a hold is computed with while scheduling knows no price: no node that fits is online.
    gpu_price_ceiling_micros: int = 4_000_000
    cpu_price_ceiling_micros: int = 400_000

    attempts_max: int = 3
    delayed_start_seconds: int = 60

    # A submit that has not finished after this long is taken to be dead: a retry may take it over.
    submit_lease_seconds: float = 12.0
    # A submit that nobody took over for this long is voided. Must be below 60 s, the promise.
    orphan_age_seconds: float = 30.0
    sweep_seconds: float = 10.0
    idempotency_days: int = 7

    runtime_tail_lines: int = 100
    runtime_tail_bytes: int = 32 * 1024
    failure_excerpt_lines: int = 10

    def __post_init__(self) -> None:
        if self.sweep_seconds < 5:
            raise ValueError("sweep_seconds must be at least 5")
        if self.orphan_age_seconds <= self.submit_lease_seconds:
            raise ValueError("orphan_age_seconds must be more than submit_lease_seconds")
