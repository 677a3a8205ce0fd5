"""The aggregates: Job and Attempt, and what they say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.jobs.domain.spec import Spec
from services.jobs.domain.states import AttemptState, Outcome, Phase, Reason, Status


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs that run a job; all of one kind. `memory_bytes` is of each."""

    vendor: str
    name: str
    count: int
    memory_bytes: int
    simulated: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an attempt runs. `price` is micro-USD per hour."""

    node_id: str
    region: str = ""
    provider: str = ""
    price: int = 0
    gpu: Gpu | None = None
    simulated: bool = False
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside, micro-USD. `ceiling` and `hourly` are per hour: the highest price that the
    planner may place at, and the likely one."""

    ceiling: int = 0
    hourly: int = 0
    amount: int = 0
    reservation_id: str = ""
    relaxed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """What billing has told so far, micro-USD; `total` is None before the first settlement."""

    total: int | None = None
    billed_micros: int = 0
    hourly: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: a stable code, a sentence, and the phase."""

    code: str
    summary: str
    stage: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int
    signal: int = 0
    timed_out: bool = False
    out_of_memory: bool = False
    stopped: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `counts` holds how often each activity name was used, `activities` how many there
    are, `facts` how many were told on the bus. `waiting` says why no node can take it now, and
    `sealed` that an encrypted environment is kept for it.
    """

    workspace_id: str
    job_id: str
    spec: Spec
    created_time: datetime
    phase_time: datetime
    updated_time: datetime
    status: Status = Status.PENDING
    phase: Phase = Phase.SUBMITTED
    submit_until: datetime | None = None
    waiting: str = ""
    sealed: bool = False
    attempt: int = 0
    stop_reason: Reason = Reason.NONE
    queued_time: datetime | None = None
    started_time: datetime | None = None
    finished_time: datetime | None = None
    reason: Reason = Reason.NONE
    status_reason: str = ""
    failure: Failure | None = None
    exit_code: int | None = None
    timed_out: bool = False
    artifacts_ready: bool = False
    placement: Placement | None = None
    hold: Hold = field(default_factory=Hold)
    cost: Cost = field(default_factory=Cost)
    counts: Mapping[str, int] = field(default_factory=dict)
    activities: int = 0
    facts: int = 0
    version: int = 1

    @property
    def final(self) -> bool:
        """Nothing more happens."""
        return self.status.final


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Which lease of which attempt; the fence of everything a node says."""

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    node_id: str
    session_epoch: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to run a job. `phases` are those already told for it."""

    workspace_id: str
    job_id: str
    number: int
    lease_id: str
    session_epoch: int
    placement: Placement
    assigned_time: datetime
    state: AttemptState = AttemptState.ASSIGNED
    claimed_time: datetime | None = None
    started_time: datetime | None = None
    exited_time: datetime | None = None
    finished_time: datetime | None = None
    exit: Exit | None = None
    reason: str = ""
    phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """One lifecycle event. `position` counts 1, 2, 3 in its job, `ordinal` among its name."""

    position: int
    name: str
    ordinal: int
    phase: Phase
    title: str
    message: str
    source: str
    level: str
    time: datetime
    attempt: int = 0


# What the bus is told.


@dataclass(frozen=True, slots=True)
class Queued:
    """An attempt waits for a node."""

    attempt: int
    avoid_node_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Running work must stop."""

    attempt: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final. `lease_open`: an attempt is still being torn down."""

    lease_open: bool


Fact = Queued | StopRequested | Finished


# What the bus tells us.


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """One step as the node saw it."""

    phase: str
    message: str = ""
    level: str = "info"


@dataclass(frozen=True, slots=True)
class LeaseStarted:
    """The process runs, and the steps before it that had not been told."""

    time: datetime
    phases: tuple[PhaseReport, ...] = ()
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class LeaseClosed:
    """How a lease ended, with all that had not been told before."""

    outcome: Outcome
    closed_time: datetime
    exit: Exit | None = None
    claimed_time: datetime | None = None
    started_time: datetime | None = None
    exited_time: datetime | None = None
    artifacts: int = 0
    log_gap: bool = False
    message: str = ""
    phases: tuple[PhaseReport, ...] = ()
    missing_artifacts: tuple[str, ...] = ()
    runtime: str = ""
