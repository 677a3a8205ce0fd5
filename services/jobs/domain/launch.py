"""What a node needs to run an attempt, and what webhooks needs to tell the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.jobs.domain.fields import OWN_PREFIX
from services.jobs.domain.job import Job
from services.jobs.domain.spec import ARTIFACTS, INPUTS, SCRIPTS, WORKSPACE


@dataclass(frozen=True, slots=True)
class Mount:
    """An input with its signed download."""

    input_id: str
    mount_path: str
    url: str = field(repr=False)
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Launch:
    """One task of one attempt, ready to run."""

    job: Job
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    log_bytes_max: int


@dataclass(frozen=True, slots=True)
class CallbackFacts:
    """A final job and the token for its callback; empty for none."""

    job: Job
    token: str = field(repr=False)


def own_environment(job: Job, task_index: int) -> dict[str, str]:
    """The variables that the grid sets in every job."""
    gpu = job.spec.resources.gpu
    own = {
        "JOB_ID": job.job_id,
        "ATTEMPT": str(job.attempt),
        "TASK_INDEX": str(task_index),
        "WORKLOAD_TYPE": job.spec.workload_type,
        "WORKSPACE_DIR": WORKSPACE,
        "ARTIFACTS_DIR": ARTIFACTS,
        "INPUTS_DIR": INPUTS,
        "SCRIPTS_DIR": SCRIPTS,
        "GPU_COUNT": str(gpu.count if gpu is not None else 0),
    }
    return {OWN_PREFIX + name: value for name, value in own.items()}
