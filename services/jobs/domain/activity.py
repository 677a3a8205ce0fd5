"""The lifecycle events that people read: which there are, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.jobs.domain.states import Phase, Status

PLATFORM, NODE = "platform", "node"
SEQUENCE_STEP = 10


@dataclass(frozen=True, slots=True)
class Template:
    """What an event of one name says unless something better is known."""

    phase: Phase | None
    title: str
    message: str
    source: str = PLATFORM
    level: str = "info"


CATALOGUE: Mapping[str, Template] = {
    "submitted": Template(Phase.SUBMITTED, "Job submitted", "The request was accepted."),
    "queued": Template(Phase.QUEUED, "Job queued", "The job is eligible for scheduling."),
    "waiting_for_capacity": Template(
        Phase.WAITING_FOR_CAPACITY,
        "Waiting for capacity",
        "No node that is online can take the job.",
        level="warning",
    ),
    "assigned": Template(Phase.WORKER_ASSIGNED, "Node assigned", "A node has been chosen."),
    "container_starting": Template(
        Phase.CONTAINER_STARTING, "Container starting", "The node has claimed the start.", NODE
    ),
    "runtime_preparation": Template(
        Phase.RUNTIME_PREPARATION,
        "Preparing the workspace",
        "Workspace and inputs are being prepared.",
        NODE,
    ),
    "image_download": Template(
        Phase.IMAGE_DOWNLOAD, "Downloading the image", "The image is being pulled.", NODE
    ),
    "workload_execution": Template(
        Phase.WORKLOAD_EXECUTION, "Starting the command", "The command has been started.", NODE
    ),
    "running": Template(Phase.RUNNING, "Running", "The command runs.", NODE),
    "notice": Template(None, "Notice", "The node has something to say.", NODE, "warning"),
    "cleanup": Template(
        Phase.CLEANUP, "Cleaning up", "The command has ended; logs and artifacts are kept.", NODE
    ),
    "artifact_missing": Template(
        None, "Artifact missing", "A declared artifact was not there.", NODE, "warning"
    ),
    "log_gap": Template(None, "Log incomplete", "Part of the log may be missing.", NODE, "warning"),
    "budget_exhausted": Template(
        None, "Budget used up", "The credit held for the job is used up.", level="warning"
    ),
    "retry": Template(
        Phase.QUEUED, "Trying again", "The attempt was lost; another is queued.", level="warning"
    ),
    "completed": Template(Phase.TERMINAL, "Job completed", "The command exited with code 0."),
    "failed": Template(Phase.TERMINAL, "Job failed", "The job failed.", level="error"),
    "rejected": Template(Phase.TERMINAL, "Job rejected", "The job was refused.", level="error"),
    "cancelled": Template(Phase.TERMINAL, "Job cancelled", "The job was cancelled."),
}

FINAL_ACTIVITY: Mapping[Status, str] = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.REJECTED: "rejected",
    Status.CANCELLED: "cancelled",
}


def public_id(job_id: str, name: str, ordinal: int) -> str:
    """`<job>:<name>` the first time, `<job>:<name>:<n>` afterwards."""
    return f"{job_id}:{name}" if ordinal == 1 else f"{job_id}:{name}:{ordinal}"


def sequence(position: int) -> int:
    """The public number of the event at `position`."""
    return position * SEQUENCE_STEP
