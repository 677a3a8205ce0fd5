"""Voiding submits that died, and forgetting old keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from libs.db import Tx
from libs.errors import GridError, StaleWrite
from libs.telemetry import logger
from libs.tenancy import SystemScope, Tenant
from services.jobs.domain.job import Job
from services.jobs.domain.moves import reject, take_over
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
    tenant = Tenant(job.workspace_id)

    def claim(tx: Tx) -> Job:
        until = tx.now() + timedelta(seconds=tools.config.submit_lease_seconds)
        mine = take_over(job, until)
        tools.repository.update(tx, tenant, mine)
        return replace(mine, version=mine.version + 1)

    mine = await tools.database.write(claim)
    await tools.holds.release(tenant, mine.job_id)

    def void(tx: Tx) -> None:
        if mine.status is Status.PENDING:
            save(tools, tx, tenant, reject(mine, tx.now(), Reason.RESERVATION, _MESSAGE))
        else:
            tools.repository.update(tx, tenant, replace(mine, submit_until=None))
        tools.repository.remove_keys(tx, tenant, mine.job_id)
        tools.repository.free_client_id(tx, tenant, mine.job_id)

    await tools.database.write(void)
    return 1


async def expire_keys(tools: Tools) -> int:
    """Forgets answered keys after their days; returns how many."""
    days = timedelta(days=tools.config.idempotency_days)
    return await tools.database.write(
        lambda tx: tools.repository.expire_keys(tx, SystemScope("old keys"), tx.now() - days)
    )
