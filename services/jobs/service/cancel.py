"""CancelJob: the row decides, at once and alone; the lease ends later."""

from __future__ import annotations

from libs.db import Tx, retry_stale
from libs.tenancy import Tenant
from services.jobs.domain.job import Job
from services.jobs.domain.moves import cancel
from services.jobs.errors import AlreadyFinal, JobNotFound
from services.jobs.service.ports import Tools
from services.jobs.service.saving import save


async def cancel_job(tools: Tools, tenant: Tenant, job_id: str, reason: str) -> Job:
    """Cancels a job that is not final and returns it; raises AlreadyFinal otherwise."""

    def write(tx: Tx) -> Job:
        job = tools.repository.get(tx, tenant, job_id)
        if job is None:
            raise JobNotFound(job_id)
        if job.final:
            raise AlreadyFinal(
                f"the job is {job.status} already; only a job that is not final can be cancelled",
                details={"status": job.status.value},
            )
        open_lease = any(
            attempt.state.open for attempt in tools.repository.attempts(tx, tenant, job_id)
        )
        return save(tools, tx, tenant, cancel(job, tx.now(), reason, lease_open=open_lease))

    return await retry_stale(lambda: tools.database.write(write))
