"""Settings of the webhooks service; section `[webhooks]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WebhooksConfig:
    """Limits, retries and policy of deliveries."""

    # Deliver to localhost. For a grid on a developer's machine; elsewhere it would open the
    # services of the machine to every tenant.
    allow_localhost: bool = False
    # Ports that callbacks may use, besides any port of localhost where that is allowed.
    allowed_ports: tuple[int, ...] = (443, 8443)
    # Sign deliveries when set. Never logged.
    signing_secret: str = ""

    total_timeout_seconds: float = 10.0
    response_bytes_max: int = 64 * 1024
    concurrency: int = 16
    connections_per_host: int = 4

    # Eight tries over about half a day; each pause is drawn between nothing and its bound.
    attempts_max: int = 8
    backoff_seconds: float = 30.0
    backoff_seconds_max: float = 4 * 3600.0
    # A try that was not heard of for this long is taken to be lost with its process.
    claim_seconds: float = 60.0

    sweep_seconds: float = 15.0
    retention_days: int = 30

    def __post_init__(self) -> None:
        if self.sweep_seconds < 5:
            raise ValueError("sweep_seconds must be at least 5")
        if self.claim_seconds <= self.total_timeout_seconds:
            raise ValueError("claim_seconds must be more than total_timeout_seconds")
