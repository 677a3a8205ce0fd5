"""Use cases of jobs, one public async method each; the files beside this one carry them out."""

from __future__ import annotations

from libs.tenancy import Tenant
from services.jobs.domain.draft import Draft
from services.jobs.domain.job import Job
from services.jobs.domain.launch import CallbackFacts, Launch
from services.jobs.domain.submitted import Submitted
from services.jobs.service.cancel import cancel_job
from services.jobs.service.estimating import Estimate, estimate_job
from services.jobs.service.facts import Facts
from services.jobs.service.launch import get_callback, get_launch_spec
from services.jobs.service.ports import Tools
from services.jobs.service.reading import Reading
from services.jobs.service.submit import submit_job
from services.jobs.service.sweep import expire_keys, sweep_orphans

__all__ = ["Estimate", "JobsService", "Tools"]


class JobsService:
    """The house that all three doors open onto. `read` and `facts` hold the reads of people and the
    effects of records."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.read = Reading(tools)
        self.facts = Facts(tools)

    async def estimate_job(
        self, tenant: Tenant, draft: Draft, violations: tuple[tuple[str, str], ...] = ()
    ) -> Estimate:
        """What a submit of this draft would come to."""
        return await estimate_job(self._tools, tenant, draft, violations)

    async def submit_job(
        self, tenant: Tenant, draft: Draft, *, idempotency_key: str, request_hash: bytes
    ) -> Submitted:
        """Accepts a job: once for each key, however often it is called."""
        return await submit_job(
            self._tools, tenant, draft, idempotency_key=idempotency_key, request_hash=request_hash
        )

    async def cancel_job(self, tenant: Tenant, job_id: str, reason: str) -> Job:
        """Cancels a job that is not final."""
        return await cancel_job(self._tools, tenant, job_id, reason)

    async def get_launch_spec(
        self, job_id: str, attempt: int, lease_id: str, task_index: int
    ) -> Launch:
        """What a node needs to run one task of the current attempt."""
        return await get_launch_spec(self._tools, job_id, attempt, lease_id, task_index)

    async def get_callback(self, job_id: str) -> CallbackFacts:
        """What webhooks needs to tell the end of a job."""
        return await get_callback(self._tools, job_id)

    async def sweep_orphans(self) -> int:
        """Voids submits that died; returns how many."""
        return await sweep_orphans(self._tools)

    async def expire_keys(self) -> int:
        """Forgets old idempotency keys; returns how many."""
        return await expire_keys(self._tools)
