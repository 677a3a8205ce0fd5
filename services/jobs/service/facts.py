"""What leases and billing tell, applied to the job in the batch's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from libs.db import Tx
from libs.tenancy import Tenant
from services.jobs.domain import leases
from services.jobs.domain.change import Change
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
from services.jobs.service.working import Working


class Facts:
    """One method a fact. All are fenced by attempt and lease, and harmless when repeated."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def lease_opened(
        self, tx: Tx, tenant: Tenant, lease: LeaseRef, placement: Placement, time: datetime
    ) -> None:
        """A node has been given the lease."""
        working = Working.of(self._tools, tx)
        job = working.job(tenant, lease.job_id)
        if job is not None:
            attempt = working.attempts(tenant, lease.job_id).get(lease.attempt)
            working.keep(tenant, leases.opened(job, attempt, lease, placement, time))

    def lease_claimed(self, tx: Tx, tenant: Tenant, lease: LeaseRef, time: datetime) -> None:
        """Its start was granted."""
        self._apply(tx, tenant, lease, lambda job, att: leases.claimed(job, att, lease, time))

    def lease_progressed(
        self,
        tx: Tx,
        tenant: Tenant,
        lease: LeaseRef,
        reports: Sequence[PhaseReport],
        time: datetime,
    ) -> None:
        """A slow step before the start."""
        self._apply(
            tx, tenant, lease, lambda job, att: leases.progressed(job, att, lease, reports, time)
        )

    def lease_started(self, tx: Tx, tenant: Tenant, lease: LeaseRef, fact: LeaseStarted) -> None:
        """The process runs."""
        self._apply(tx, tenant, lease, lambda job, att: leases.started(job, att, lease, fact))

    def lease_exited(
        self, tx: Tx, tenant: Tenant, lease: LeaseRef, time: datetime, exit: Exit
    ) -> None:
        """The process has ended."""
        self._apply(tx, tenant, lease, lambda job, att: leases.exited(job, att, lease, time, exit))

    def lease_closed(self, tx: Tx, tenant: Tenant, lease: LeaseRef, fact: LeaseClosed) -> None:
        """The lease is over: the job is judged or tried again."""
        known = Working.of(self._tools, tx).attempts(tenant, lease.job_id)
        lost = tuple(
            each.placement.node_id for each in known.values() if each.state is AttemptState.LOST
        )
        policy = leases.Policy(self._tools.config.attempts_max, lost)
        self._apply(
            tx, tenant, lease, lambda job, att: leases.closed(job, att, lease, fact, policy)
        )

    def settled(
        self, tx: Tx, tenant: Tenant, job_id: str, amounts: tuple[int, int, int, int]
    ) -> None:
        """Cost so far, billed microseconds, price per hour and what is still held."""
        working = Working.of(self._tools, tx)
        job = working.job(tenant, job_id)
        if job is not None:
            total, billed, hourly, held = amounts
            working.put(tenant, settle(job, total, billed, hourly, held))

    def hold_released(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """What was left of the hold went back."""
        working = Working.of(self._tools, tx)
        job = working.job(tenant, job_id)
        if job is not None and job.hold.amount:
            working.put(tenant, release(job))

    def hold_exhausted(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> None:
        """The credit is used up: the work must stop."""
        working = Working.of(self._tools, tx)
        job = working.job(tenant, job_id)
        if job is not None:
            working.keep(tenant, stop(job, tx.now(), attempt, Reason.BUDGET))

    def _apply(
        self, tx: Tx, tenant: Tenant, lease: LeaseRef, move: Callable[[Job, Attempt], Change]
    ) -> None:
        working = Working.of(self._tools, tx)
        job = working.job(tenant, lease.job_id)
        attempt = working.attempts(tenant, lease.job_id).get(lease.attempt)
        if job is not None and attempt is not None and attempt.lease_id == lease.lease_id:
            working.keep(tenant, move(job, attempt))
