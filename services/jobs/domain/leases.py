"""Moves that a lease causes. Every one is fenced: what another attempt says is not applied, and a
final job absorbs everything; then only the attempt's own row goes on to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.jobs.domain.change import Change
from services.jobs.domain.job import (
    Attempt,
    Exit,
    Failure,
    Finished,
    Job,
    LeaseClosed,
    LeaseRef,
    LeaseStarted,
    PhaseReport,
    Placement,
    Queued,
)
from services.jobs.domain.moves import BUDGET_SENTENCE, finish
from services.jobs.domain.states import (
    ATTEMPT_MOVES,
    INFRASTRUCTURE,
    AttemptState,
    Outcome,
    Phase,
    Reason,
    Status,
)

# Node's word -> our activity.
_PHASES = frozenset(
    {"container_starting", "runtime_preparation", "image_download", "workload_execution"}
)
# A node may say much; a job's history stays readable.
_NOTICES_MAX = 100
_NOT_STARTED = frozenset({AttemptState.ASSIGNED, AttemptState.STARTING})


def opened(
    job: Job, attempt: Attempt | None, lease: LeaseRef, placement: Placement, now: datetime
) -> Change:
    """A node has been given the lease: QUEUED -> ASSIGNED."""
    change = Change(job, now, attempt)
    if attempt is not None:
        return change
    change.attempt = Attempt(
        workspace_id=job.workspace_id,
        job_id=job.job_id,
        number=lease.attempt,
        lease_id=lease.lease_id,
        session_epoch=lease.session_epoch,
        placement=placement,
        assigned_time=now,
    )
    if not current(job, lease) or job.status is not Status.QUEUED:
        return change
    change.move(Status.ASSIGNED)
    change.set(placement=placement, waiting="")
    where = f"Node {placement.node_id} in {placement.region}" if placement.region else "A node"
    change.say("assigned", f"{where} has been chosen.", attempt=lease.attempt)
    return change


def claimed(job: Job, attempt: Attempt, lease: LeaseRef, time: datetime) -> Change:
    """The start was granted; the meter runs."""
    change = Change(job, time, attempt)
    if attempt.state is not AttemptState.ASSIGNED:
        return change
    change.attempt = replace(change.move_attempt(AttemptState.STARTING), claimed_time=time)
    if current(job, lease):
        change.enter("container_starting")
    return change


def progressed(
    job: Job, attempt: Attempt, lease: LeaseRef, reports: Sequence[PhaseReport], now: datetime
) -> Change:
    """Slow steps before the start."""
    change = Change(job, now, attempt)
    if current(job, lease) and attempt.state.open:
        _tell_phases(change, reports)
    return change


def started(job: Job, attempt: Attempt, lease: LeaseRef, fact: LeaseStarted) -> Change:
    """The process runs: ASSIGNED -> RUNNING."""
    change = Change(job, fact.time, attempt)
    if attempt.state not in _NOT_STARTED:
        return change
    _start(change, fact.time, fact.runtime)
    if not current(job, lease):
        return change
    _tell_phases(change, fact.phases)
    if change.job.status is Status.ASSIGNED:
        change.move(Status.RUNNING)
    change.enter("running")
    return change


def exited(job: Job, attempt: Attempt, lease: LeaseRef, time: datetime, exit: Exit) -> Change:
    """The process has ended; the job is judged when the lease is closed."""
    change = Change(job, time, attempt)
    if AttemptState.EXITED not in ATTEMPT_MOVES[attempt.state]:
        return change
    change.attempt = replace(change.move_attempt(AttemptState.EXITED), exited_time=time, exit=exit)
    if current(job, lease):
        change.enter("cleanup")
    return change


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a job is tried, and which nodes lost it before."""

    attempts_max: int
    lost: tuple[str, ...] = ()


def closed(
    job: Job, attempt: Attempt, lease: LeaseRef, fact: LeaseClosed, policy: Policy
) -> Change:
    """The lease is over: the job is judged, or tried again."""
    change = Change(job, fact.closed_time, attempt)
    if not attempt.state.open:
        return change
    _close_attempt(change, fact)
    if not current(job, lease):
        return change
    _tell_phases(change, fact.phases)
    if fact.log_gap:
        change.say("log_gap", attempt=lease.attempt)
    for path in fact.missing_artifacts:
        change.say("artifact_missing", f"{path} was not there.", attempt=lease.attempt)
    if fact.exit is not None:
        change.enter("cleanup")
    if retriable(job, fact) and lease.attempt < policy.attempts_max:
        _retry(change, fact, (*policy.lost, lease.node_id))
    else:
        _judge(change, fact)
    return change


def current(job: Job, lease: LeaseRef) -> bool:
    """The job still waits for this attempt."""
    return not job.final and job.attempt == lease.attempt


def retriable(job: Job, fact: LeaseClosed) -> bool:
    """The grid is to blame, and nobody asked for a stop."""
    return fact.outcome in INFRASTRUCTURE and job.stop_reason is Reason.NONE


def _start(change: Change, time: datetime, runtime: str) -> None:
    moved = change.move_attempt(AttemptState.RUNNING)
    placement = replace(moved.placement, runtime=runtime or moved.placement.runtime)
    change.attempt = replace(moved, started_time=time, placement=placement)
    if not change.job.final and change.job.attempt == moved.number:
        change.set(started_time=time, placement=placement)


def _tell_phases(change: Change, reports: Sequence[PhaseReport]) -> None:
    number = change.attempt.number if change.attempt is not None else 0
    for report in reports:
        if report.phase in _PHASES:
            change.enter(report.phase, report.message, report.level)
        elif report.phase == "notice" and change.job.counts.get("notice", 0) < _NOTICES_MAX:
            change.say("notice", report.message, level=report.level, attempt=number)


def _close_attempt(change: Change, fact: LeaseClosed) -> None:
    attempt = change.attempt
    if attempt is None:
        return
    if fact.started_time is not None and attempt.state in _NOT_STARTED:
        _start(change, fact.started_time, fact.runtime)
    moved = change.move_attempt(_end_of_attempt(fact))
    change.attempt = replace(
        moved,
        claimed_time=moved.claimed_time or fact.claimed_time,
        exited_time=moved.exited_time or fact.exited_time,
        finished_time=fact.closed_time,
        exit=fact.exit or moved.exit,
        reason=_sentence(fact),
    )


def _end_of_attempt(fact: LeaseClosed) -> AttemptState:
    if fact.outcome is Outcome.CANCELLED:
        return AttemptState.CANCELLED
    if fact.outcome is Outcome.EXITED:
        return AttemptState.SUCCEEDED if _success(fact.exit) else AttemptState.FAILED
    if fact.outcome in INFRASTRUCTURE:
        return AttemptState.LOST
    return AttemptState.FAILED


def _success(exit: Exit | None) -> bool:
    if exit is None or exit.timed_out or exit.out_of_memory or exit.stopped:
        return False
    return exit.code == 0


def _retry(change: Change, fact: LeaseClosed, lost: tuple[str, ...]) -> None:
    number = change.job.attempt + 1
    change.move(Status.QUEUED)
    change.set(attempt=number, placement=None, started_time=None, queued_time=change.now)
    change.say("retry", f"{_sentence(fact)} Attempt {number} is queued.", attempt=number)
    change.tell(Queued(attempt=number, avoid_node_ids=tuple(dict.fromkeys(lost))))


def _judge(change: Change, fact: LeaseClosed) -> None:
    exit = fact.exit
    change.set(
        exit_code=exit.code if exit is not None else None,
        timed_out=exit is not None and exit.timed_out,
        artifacts_ready=fact.outcome is Outcome.EXITED or fact.artifacts > 0,
    )
    if fact.outcome is Outcome.EXITED and _success(exit):
        finish(change, Status.COMPLETED, Reason.NONE, "")
    else:
        reason, failure = _failure(change.job, fact)
        finish(change, Status.FAILED, reason, failure.summary, failure)
    change.tell(Finished(lease_open=False))


def _failure(job: Job, fact: LeaseClosed) -> tuple[Reason, Failure]:
    reason, code, summary = _cause(job, fact)
    stage = job.phase if job.phase is not Phase.TERMINAL else Phase.CLEANUP
    if fact.exit is not None and stage is Phase.CLEANUP:
        stage = Phase.RUNNING
    return reason, Failure(code, summary, stage.value)


def _cause(job: Job, fact: LeaseClosed) -> tuple[Reason, str, str]:
    exit = fact.exit
    if exit is not None and exit.timed_out:
        return Reason.DEADLINE, "TIMED_OUT", _timeout_sentence(job)
    if exit is not None and exit.out_of_memory:
        return (
            Reason.OUT_OF_MEMORY,
            "OUT_OF_MEMORY",
            "The command used more memory than its limit.",
        )
    if job.stop_reason is Reason.BUDGET:
        return Reason.BUDGET, "BUDGET_EXHAUSTED", BUDGET_SENTENCE
    if fact.outcome is Outcome.IMAGE_UNAVAILABLE:
        return Reason.IMAGE, "IMAGE_UNAVAILABLE", _sentence(fact)
    if fact.outcome is Outcome.LAUNCH_INVALID:
        return Reason.SCREENING, "LAUNCH_INVALID", _sentence(fact)
    if exit is not None and exit.stopped:
        return Reason.INFRASTRUCTURE, "STOPPED", "The node stopped the command."
    if fact.outcome is Outcome.EXITED and exit is not None:
        return Reason.NONE, "EXIT_CODE", _exit_sentence(exit)
    return Reason.INFRASTRUCTURE, fact.outcome.value.upper(), _sentence(fact)


def _timeout_sentence(job: Job) -> str:
    return f"The command was stopped after timeout_seconds ({job.spec.timeout_seconds} s)."


def _exit_sentence(exit: Exit) -> str:
    if exit.reason:
        return exit.reason
    if exit.signal:
        return f"The command was ended by signal {exit.signal}."
    return f"The command exited with code {exit.code}."


_SENTENCES = {
    Outcome.EXITED: "The command ended.",
    Outcome.CANCELLED: "The lease was closed before the command started.",
    Outcome.NODE_LOST: "The node was not heard of any more.",
    Outcome.ABANDONED: "The node restarted and lost the command.",
    Outcome.RUNTIME_FAILED: "The node could not start the command.",
    Outcome.RUNTIME_LOST: "The node lost the running command.",
    Outcome.IMAGE_UNAVAILABLE: "The image cannot be had; check its name and that it is public.",
    Outcome.NODE_REFUSED: "The node refused the job.",
    Outcome.LAUNCH_INVALID: "The job cannot be started as it is; check its command.",
}


def _sentence(fact: LeaseClosed) -> str:
    return fact.message or _SENTENCES[fact.outcome]
