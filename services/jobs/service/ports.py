"""What the use cases need from outside, as narrow protocols, and the bundle they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from libs.clock import Clock
from libs.db import Database, OutboxEvent
from libs.ids import IdSource
from libs.sealing import Sealer
from libs.tenancy import Tenant
from services.jobs.config import JobsConfig
from services.jobs.domain.job import Fact, Job
from services.jobs.domain.launch import Mount
from services.jobs.domain.quote import Quote
from services.jobs.domain.shown import LogTails
from services.jobs.domain.spec import InputFile, Spec
from services.jobs.repository import JobsRepository


class Quotes(Protocol):
    """scheduling."""

    async def quote(self, tenant: Tenant, spec: Spec) -> Quote:
        """Where work of this shape would run. Holds nothing."""

    async def explain(self, tenant: Tenant, job_id: str) -> str:
        """Why a queued job is not placed, as a sentence; empty when it is not in the queue."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """A hold, as billing keeps it."""

    reservation_id: str
    amount_micros: int


class Holds(Protocol):
    """billing."""

    async def reserve(
        self, tenant: Tenant, job_id: str, amount_micros: int, price_micros_per_hour: int
    ) -> Reserved:
        """Holds credit for attempt 1; the same call again answers with the same hold. Raises
        INSUFFICIENT_FUNDS, and HoldGone when that hold was given back in the meantime."""

    async def release(self, tenant: Tenant, job_id: str) -> None:
        """Gives back what was held and never used; harmless when nothing is."""


class Inputs(Protocol):
    """artifacts."""

    async def resolve(
        self, tenant: Tenant, input_ids: Sequence[str], script_ids: Sequence[str]
    ) -> tuple[InputFile, ...]:
        """The inputs as they will be mounted. Raises JOB_INPUT_NOT_FOUND, JOB_INPUT_NOT_READY."""

    async def grant(self, tenant: Tenant, input_ids: Sequence[str]) -> tuple[Mount, ...]:
        """Signed downloads for a node."""


class Tails(Protocol):
    """logs."""

    async def tails(self, tenant: Tenant, job_id: str, lines: int, bytes: int) -> LogTails:
        """The last `lines` of stdout and stderr, at most `bytes` of each."""


# (job, number in its history, fact, time) -> the outbox row that tells it.
Teller = Callable[[Job, int, Fact, datetime], OutboxEvent]


@dataclass(frozen=True, slots=True)
class Tools:
    """All that the use cases work with."""

    database: Database
    repository: JobsRepository
    ids: IdSource
    clock: Clock
    config: JobsConfig
    sealer: Sealer
    cursor_key: bytes = field(repr=False)
    tell: Teller
    quotes: Quotes
    holds: Holds
    inputs: Inputs
    tails: Tails
