"""The words of the state machine, and which move between them is legal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """Public status of a job; the proto enum JobStatus tells what each means."""

    PENDING = "pending"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing more happens."""
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.REJECTED, Status.CANCELLED})

# From -> to. Everything that is not here is refused, and a test walks every pair.
MOVES: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.QUEUED, Status.REJECTED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.ASSIGNED, Status.FAILED, Status.REJECTED, Status.CANCELLED}),
    Status.ASSIGNED: frozenset(
        {Status.RUNNING, Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    ),
    Status.RUNNING: frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.REJECTED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Phase(StrEnum):
    """Where a job is within its status, in the contract's words."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    PROVIDER_PROVISIONING = "provider_provisioning"
    WORKER_ASSIGNED = "worker_assigned"
    CONTAINER_STARTING = "container_starting"
    RUNTIME_PREPARATION = "runtime_preparation"
    IMAGE_DOWNLOAD = "image_download"
    WORKLOAD_EXECUTION = "workload_execution"
    RUNNING = "running"
    CLEANUP = "cleanup"
    TERMINAL = "terminal"


class Reason(StrEnum):
    """Why a job ended other than by its own exit; the proto enum TerminationReason."""

    NONE = ""
    USER = "user"
    DEADLINE = "deadline"
    BUDGET = "budget"
    PREEMPTED = "preempted"
    SCREENING = "screening"
    INFRASTRUCTURE = "infrastructure"
    OUT_OF_MEMORY = "out_of_memory"
    IMAGE = "image"
    RESERVATION = "reservation"


class AttemptState(StrEnum):
    """How far an attempt came."""

    ASSIGNED = "assigned"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Its lease has not been closed."""
        return self in OPEN_ATTEMPT


OPEN_ATTEMPT = frozenset(
    {AttemptState.ASSIGNED, AttemptState.STARTING, AttemptState.RUNNING, AttemptState.EXITED}
)
_CLOSED = frozenset(set(AttemptState) - OPEN_ATTEMPT)

ATTEMPT_MOVES: Mapping[AttemptState, frozenset[AttemptState]] = {
    AttemptState.ASSIGNED: frozenset(
        {AttemptState.STARTING, AttemptState.RUNNING, AttemptState.EXITED, *_CLOSED}
    ),
    AttemptState.STARTING: frozenset({AttemptState.RUNNING, AttemptState.EXITED, *_CLOSED}),
    AttemptState.RUNNING: frozenset({AttemptState.EXITED, *_CLOSED}),
    AttemptState.EXITED: _CLOSED,
    AttemptState.SUCCEEDED: frozenset(),
    AttemptState.FAILED: frozenset(),
    AttemptState.LOST: frozenset(),
    AttemptState.CANCELLED: frozenset(),
}


class Outcome(StrEnum):
    """How a lease ended; the proto enum LeaseOutcome."""

    EXITED = "exited"
    CANCELLED = "cancelled"
    NODE_LOST = "node_lost"
    ABANDONED = "abandoned"
    RUNTIME_FAILED = "runtime_failed"
    RUNTIME_LOST = "runtime_lost"
    IMAGE_UNAVAILABLE = "image_unavailable"
    NODE_REFUSED = "node_refused"
    LAUNCH_INVALID = "launch_invalid"


# Ours, not the user's: another attempt is worth it, and billing keeps the hold for it. After any
# other outcome the hold is settled, so a further attempt would have nothing to live on.
INFRASTRUCTURE = frozenset(
    {
        Outcome.NODE_LOST,
        Outcome.ABANDONED,
        Outcome.RUNTIME_FAILED,
        Outcome.RUNTIME_LOST,
        Outcome.NODE_REFUSED,
    }
)
