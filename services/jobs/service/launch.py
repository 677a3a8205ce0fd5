"""What nodes and webhooks ask about one job."""

from __future__ import annotations

from dataclasses import replace

from libs.db import Tx
from libs.tenancy import SystemScope, Tenant
from services.jobs.domain.job import Job
from services.jobs.domain.launch import CallbackFacts, Launch, own_environment
from services.jobs.domain.states import Reason
from services.jobs.errors import JobNotFound, LaunchRefused
from services.jobs.service.ports import Tools
from services.jobs.service.secrets import open_environment, open_token

_LAUNCH = SystemScope("a node claims the start of a lease")
_CALLBACK = SystemScope("webhooks tells the end of a job")


async def get_launch_spec(
    tools: Tools, job_id: str, attempt: int, lease_id: str, task_index: int
) -> Launch:
    """The launch of one task. Changes nothing, so it may be asked again. Raises LaunchRefused when
    the job does not want this attempt any more: the lease is then closed unstarted."""

    def read(tx: Tx) -> tuple[Job, bytes | None]:
        job = _found(tools, tx, _LAUNCH, job_id)
        tenant = Tenant(job.workspace_id)
        _check_current(tools, tx, job, attempt, lease_id)
        return job, tools.repository.secrets(tx, tenant, job_id)[0]

    job, sealed = await tools.database.read(read)
    tenant = Tenant(job.workspace_id)
    environment = open_environment(tools, tenant, job_id, sealed) if sealed else {}
    ids = [item.input_id for item in job.spec.inputs]
    mounts = await tools.inputs.grant(tenant, ids) if ids else ()
    paths = {item.input_id: item.mount_path for item in job.spec.inputs}
    return Launch(
        job=job,
        environment={**environment, **own_environment(job, task_index)},
        # Where an input is mounted was decided at submit.
        mounts=tuple(replace(each, mount_path=paths[each.input_id]) for each in mounts),
        log_bytes_max=tools.config.log_bytes_max,
    )


async def get_callback(tools: Tools, job_id: str) -> CallbackFacts:
    """Target and facts of a final job's callback. Raises JobNotFound when it has none."""

    def read(tx: Tx) -> tuple[Job, bytes | None]:
        job = _found(tools, tx, _CALLBACK, job_id)
        return job, tools.repository.secrets(tx, Tenant(job.workspace_id), job_id)[1]

    job, sealed = await tools.database.read(read)
    if job.spec.callback is None or not job.final:
        raise JobNotFound(job_id)
    token = open_token(tools, Tenant(job.workspace_id), job_id, sealed) if sealed else ""
    return CallbackFacts(job, token)


def _found(tools: Tools, tx: Tx, scope: SystemScope, job_id: str) -> Job:
    job = tools.repository.get(tx, scope, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def _check_current(tools: Tools, tx: Tx, job: Job, attempt: int, lease_id: str) -> None:
    if job.final or job.attempt != attempt or job.stop_reason is not Reason.NONE:
        raise LaunchRefused(
            f"attempt {attempt} of {job.job_id} is not wanted any more: the job is {job.status},"
            f" its attempt is {job.attempt}"
        )
    known = tools.repository.attempts(tx, Tenant(job.workspace_id), job.job_id)
    mine = next((each for each in known if each.number == attempt), None)
    # The record of the lease may still be on its way to us; another lease may not.
    if mine is not None and (mine.lease_id != lease_id or not mine.state.open):
        raise LaunchRefused(f"attempt {attempt} of {job.job_id} belongs to another lease")
