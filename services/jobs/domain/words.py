"""The sentences that a job's view carries."""

from __future__ import annotations

from services.jobs.domain.job import Job
from services.jobs.domain.states import Phase, Status

WAITING = Phase.WAITING_FOR_CAPACITY.value
_MESSAGES = {
    Phase.SUBMITTED: "The request was accepted; credit for it is being held.",
    Phase.QUEUED: "Waiting for a node.",
    Phase.WAITING_FOR_CAPACITY: "Waiting for compatible capacity.",
    Phase.PROVIDER_PROVISIONING: "Capacity is being prepared.",
    Phase.WORKER_ASSIGNED: "A node has been chosen.",
    Phase.CONTAINER_STARTING: "The node has claimed the start.",
    Phase.RUNTIME_PREPARATION: "Workspace and inputs are being prepared.",
    Phase.IMAGE_DOWNLOAD: "The image is being pulled.",
    Phase.WORKLOAD_EXECUTION: "The command has been started.",
    Phase.RUNNING: "The command runs.",
    Phase.CLEANUP: "The command has ended; logs and artifacts are being kept.",
}
_FINAL = {
    Status.COMPLETED: "The job completed.",
    Status.FAILED: "The job failed.",
    Status.REJECTED: "The job was refused.",
    Status.CANCELLED: "The job was cancelled.",
}
_DELAYS = {
    Phase.IMAGE_DOWNLOAD: "The image is still being pulled.",
    Phase.RUNTIME_PREPARATION: "The node is still preparing the workspace.",
}


def status_message(job: Job) -> str:
    """One sentence on where the job stands."""
    if job.final:
        return job.failure.summary if job.failure is not None else _FINAL[job.status]
    return _MESSAGES[job.phase]


def delay_reason(job: Job) -> tuple[str, str]:
    """(code, sentence) for a start that is late."""
    if job.phase in (Phase.QUEUED, Phase.WAITING_FOR_CAPACITY):
        return WAITING, job.waiting or "No node can take the job now."
    return job.phase.value, _DELAYS.get(job.phase, status_message(job))
