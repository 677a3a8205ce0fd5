"""What leases and billing tell, applied to the job in the batch's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from libs.db import Tx
from libs.telemetry import logger
from libs.tenancy import Tenant
from services.jobs.domain import leases
from services.jobs.domain.job import (
    Attempt,
    Exit,
    Job,
    LeaseClosed,
    LeaseRef,
    LeaseStarted,
    PhaseReport,
    Placement,
)
from services.jobs.domain.moves import release, settle, stop
from services.jobs.domain.states import AttemptState, Reason
from services.jobs.service.ports import Tools
from services.jobs.service.saving import save

_log = logger("jobs.facts")


class Facts:
    """One method a fact. All are fenced by attempt and lease, and harmless when repeated."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def lease_opened(self, tx: Tx, tenant: Tenant, lease: LeaseRef, placement: Placement) -> None:
        """A node has been given the lease."""
        job = self._job(tx, tenant, lease.job_id)
        if job is None:
            return
        attempt = self._attempt(tx, tenant, lease)
        change = leases.opened(job, attempt, lease, placement, tx.now())
        save(self._tools, tx, tenant, change)

    def lease_claimed(self, tx: Tx, tenant: Tenant, lease: LeaseRef, time: datetime) -> None:
        """Its start was granted."""
        found = self._both(tx, tenant, lease)
        if found is not None:
            save(self._tools, tx, tenant, leases.claimed(*found, lease, time))

    def lease_progressed(
        self, tx: Tx, tenant: Tenant, lease: LeaseRef, reports: Sequence[PhaseReport]
    ) -> None:
        """A slow step before the start."""
        found = self._both(tx, tenant, lease)
        if found is not None:
            save(self._tools, tx, tenant, leases.progressed(*found, lease, reports, tx.now()))

    def lease_started(self, tx: Tx, tenant: Tenant, lease: LeaseRef, fact: LeaseStarted) -> None:
        """The process runs."""
        found = self._both(tx, tenant, lease)
        if found is not None:
            save(self._tools, tx, tenant, leases.started(*found, lease, fact))

    def lease_exited(
        self, tx: Tx, tenant: Tenant, lease: LeaseRef, time: datetime, exit: Exit
    ) -> None:
        """The process has ended."""
        found = self._both(tx, tenant, lease)
        if found is not None:
            save(self._tools, tx, tenant, leases.exited(*found, lease, time, exit))

    def lease_closed(self, tx: Tx, tenant: Tenant, lease: LeaseRef, fact: LeaseClosed) -> None:
        """The lease is over: the job is judged or tried again."""
        found = self._both(tx, tenant, lease)
        if found is None:
            return
        job, attempt = found
        lost = self._lost_nodes(tx, tenant, job)
        attempts_max = self._tools.config.attempts_max
        change = leases.closed(job, attempt, lease, fact, leases.Policy(attempts_max, lost))
        save(self._tools, tx, tenant, change)

    def settled(
        self, tx: Tx, tenant: Tenant, job_id: str, amounts: tuple[int, int, int, int]
    ) -> None:
        """Cost so far, billed microseconds, price per hour and what is still held."""
        job = self._job(tx, tenant, job_id)
        if job is not None:
            total, billed, hourly, held = amounts
            self._tools.repository.update(tx, tenant, settle(job, total, billed, hourly, held))

    def hold_released(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """What was left of the hold went back."""
        job = self._job(tx, tenant, job_id)
        if job is not None and job.hold.amount:
            self._tools.repository.update(tx, tenant, release(job))

    def hold_exhausted(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> None:
        """The credit is used up: the work must stop."""
        job = self._job(tx, tenant, job_id)
        if job is not None:
            save(self._tools, tx, tenant, stop(job, tx.now(), attempt, Reason.BUDGET))

    def _job(self, tx: Tx, tenant: Tenant, job_id: str) -> Job | None:
        job = self._tools.repository.get(tx, tenant, job_id)
        if job is None:
            # A submit that was taken back has no row; nothing else may end up here.
            _log.warning("a fact about a job that is not here", job_id=job_id)
        return job

    def _attempt(self, tx: Tx, tenant: Tenant, lease: LeaseRef) -> Attempt | None:
        found = self._tools.repository.attempts(tx, tenant, lease.job_id)
        return next((each for each in found if each.number == lease.attempt), None)

    def _both(self, tx: Tx, tenant: Tenant, lease: LeaseRef) -> tuple[Job, Attempt] | None:
        job = self._job(tx, tenant, lease.job_id)
        attempt = self._attempt(tx, tenant, lease) if job is not None else None
        if job is None or attempt is None or attempt.lease_id != lease.lease_id:
            return None
        return job, attempt

    def _lost_nodes(self, tx: Tx, tenant: Tenant, job: Job) -> tuple[str, ...]:
        if job.attempt <= 1:
            return ()
        found = self._tools.repository.attempts(tx, tenant, job.job_id)
        return tuple(each.placement.node_id for each in found if each.state is AttemptState.LOST)
