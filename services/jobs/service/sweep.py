"""Voiding submits that died, and forgetting old keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from libs.db import Tx
from libs.errors import GridError, StaleWrite
from libs.telemetry import logger
from libs.tenancy import SystemScope, Tenant
from services.jobs.domain.change import Change
from services.jobs.domain.job import Job
from services.jobs.domain.moves import reject
from services.jobs.domain.states import Reason, Status
from services.jobs.service.ports import Tools
from services.jobs.service.saving import save

_SCOPE = SystemScope("orphaned submits")
_BATCH = 100
_MESSAGE = "The submit was interrupted before it was accepted; nothing was charged. Submit again."
_log = logger("jobs.sweep")


async def sweep_orphans(tools: Tools) -> int:
    """Voids submits that nobody finished in time, and returns how many: their hold is given back,
    their keys are free again, and the job shows as rejected."""
    age = tools.config.orphan_age_seconds - tools.config.submit_lease_seconds

    def find(tx: Tx) -> list[Job]:
        before = tx.now() - timedelta(seconds=age)
        return tools.repository.orphans(tx, _SCOPE, before, _BATCH)

    voided = 0
    for job in await tools.database.read(find):
        try:
            voided += await _void(tools, job)
        except (StaleWrite, GridError) as error:
            # Somebody was faster, or billing is not there: the next sweep looks again.
            _log.warning("an orphaned submit stays", job_id=job.job_id, error=repr(error))
    return voided


async def _void(tools: Tools, job: Job) -> int:
    """The row first: once the hold is given back, no retry may find the submit unfinished. What is
    final and still has its time limit is waiting for its hold to be given back."""
    tenant = Tenant(job.workspace_id)

    def void(tx: Tx) -> Job:
        until = tx.now() + timedelta(seconds=tools.config.submit_lease_seconds)
        if job.status is not Status.PENDING:
            change = Change(job, tx.now())
        else:
            change = reject(job, tx.now(), Reason.RESERVATION, _MESSAGE)
        change.set(submit_until=until)
        tools.repository.remove_keys(tx, tenant, job.job_id)
        tools.repository.free_client_id(tx, tenant, job.job_id)
        return save(tools, tx, tenant, change)

    final = await tools.database.write(void)
    await tools.holds.release(tenant, final.job_id)
    done = replace(final, submit_until=None)
    await tools.database.write(lambda tx: tools.repository.update(tx, tenant, done))
    return 1


async def expire_keys(tools: Tools) -> int:
    """Forgets answered keys after their days; returns how many."""
    days = timedelta(days=tools.config.idempotency_days)
    return await tools.database.write(
        lambda tx: tools.repository.expire_keys(tx, SystemScope("old keys"), tx.now() - days)
    )
