"""What others ask of nodes, and what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from services.nodes.domain.hardware import Gpu, Inventory, Resources
from services.nodes.domain.lease import Report


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """What a token grants; `life_seconds` 0 is the default life."""

    provider_id: str
    provider_name: str
    pool: str
    gpu_price_micros_per_hour: int
    cpu_price_micros_per_hour: int
    life_seconds: float


@dataclass(frozen=True, slots=True)
class Slot:
    """One allocation of a placement."""

    allocation_id: str
    task_index: int
    node_id: str
    resources: Resources
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """A node has been chosen for each task of an attempt."""

    placement_id: str
    job_id: str
    attempt: int
    slots: Sequence[Slot]
    price_micros_per_hour: int
    reservation_id: str
    timeout_seconds: int
    simulated: bool


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of a stream."""

    daemon_version: str
    held_lease_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One SyncRequest, cleaned."""

    seq: int
    leases: tuple[Report, ...] = ()
    draining: bool = False
    inventory: Inventory | None = None


class ClaimOutcome(StrEnum):
    """Answers to StartClaim."""

    GRANT = "grant"
    ALREADY_CLAIMED = "already_claimed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Claim:
    """The decision; the rest is set with GRANT. `expires` is in Unix seconds. `launch` is what jobs
    answered, passed on unread."""

    outcome: ClaimOutcome
    launch: Any = field(default=None, repr=False)
    grant: bytes = field(default=b"", repr=False)
    expires: float = 0.0
