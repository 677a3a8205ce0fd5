"""Moves that users and jobs itself cause: queue, reject, cancel, stop, settle."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.jobs.domain.activity import FINAL_ACTIVITY
from services.jobs.domain.change import Change
from services.jobs.domain.job import Failure, Finished, Hold, Job, Queued, StopRequested
from services.jobs.domain.states import Phase, Reason, Status

BUDGET_SENTENCE = "The credit held for the job was used up; add credit or raise max_cost_usd."


def queue(job: Job, now: datetime, hold: Hold, waiting: str) -> Change:
    """PENDING -> QUEUED: its money is held and attempt 1 may be placed. `waiting` says why no node
    can take it now; empty when one can."""
    change = Change(job, now)
    # Both activities are written with this commit, so that a submit costs one write less.
    change.say("submitted", time=job.created_time)
    change.move(Status.QUEUED)
    change.set(attempt=1, queued_time=now, hold=hold, submit_until=None, waiting=waiting)
    change.say("queued")
    if waiting:
        change.say("waiting_for_capacity", waiting)
    change.tell(Queued(attempt=1))
    return change


def reject(job: Job, now: datetime, reason: Reason, message: str) -> Change:
    """PENDING or QUEUED -> REJECTED. Nothing was told of a pending job, so nothing is told now."""
    change = Change(job, now)
    if not job.activities:
        change.say("submitted", time=job.created_time)
    finish(change, Status.REJECTED, reason, message)
    change.set(hold=replace(job.hold, amount=0))
    if job.status is not Status.PENDING:
        change.tell(Finished(lease_open=False))
    return change


def cancel(job: Job, now: datetime, reason: str, *, lease_open: bool) -> Change:
    """Any status that is not final -> CANCELLED. Work that may run is told to stop; its lease ends
    later, and changes nothing here any more."""
    change = Change(job, now)
    if not job.activities:
        change.say("submitted", time=job.created_time)
    finish(change, Status.CANCELLED, Reason.USER, reason)
    if job.status is Status.PENDING:
        # Its hold may be on its way: whoever submits it, or else the sweeper, gives it back.
        change.set(submit_until=job.submit_until)
    else:
        # A lease may be on its way to us even where we know of none.
        change.tell(StopRequested(job.attempt, Reason.USER))
        change.tell(Finished(lease_open=lease_open))
    return change


def stop(job: Job, now: datetime, attempt: int, reason: Reason) -> Change:
    """The attempt must stop, and the job fails once its lease is closed; at once while no lease is
    known. Nothing when it is final, already stopping or at another attempt."""
    change = Change(job, now)
    if job.final or job.stop_reason is not Reason.NONE or job.attempt != attempt:
        return change
    change.job = replace(job, stop_reason=reason)
    change.say("budget_exhausted", attempt=attempt)
    change.tell(StopRequested(attempt, reason))
    if job.status is Status.QUEUED:
        # Nobody would end it: the planner drops it, and a lease on its way to us is not granted.
        failure = Failure("BUDGET_EXHAUSTED", BUDGET_SENTENCE, job.phase.value)
        finish(change, Status.FAILED, reason, failure.summary, failure)
        change.tell(Finished(lease_open=False))
    return change


def finish(
    change: Change,
    status: Status,
    reason: Reason,
    status_reason: str,
    failure: Failure | None = None,
) -> None:
    """To a final status, with the activity that says so."""
    change.move(status)
    change.set(
        finished_time=change.now,
        reason=reason,
        status_reason=status_reason,
        failure=failure,
        submit_until=None,
        waiting="",
        # Nothing will be launched any more: whoever saves this deletes the environment.
        sealed=False,
    )
    message = failure.summary if failure is not None else status_reason
    change.say(FINAL_ACTIVITY[status], message, attempt=change.job.attempt)


def take_over(job: Job, until: datetime) -> Job:
    """A pending job whose submit died, for someone else to finish or to void until `until`."""
    return replace(job, submit_until=until)


def settle(job: Job, total: int, billed_micros: int, hourly: int, held: int) -> Job:
    """What the job has cost so far; amounts in micro-USD, billed time in microseconds."""
    cost = replace(job.cost, total=total, billed_micros=billed_micros, hourly=hourly)
    return replace(job, cost=cost, hold=replace(job.hold, amount=held))


def release(job: Job) -> Job:
    """What was left of the hold went back."""
    return replace(job, hold=replace(job.hold, amount=0))


def delayed(job: Job, now: datetime, threshold_seconds: float) -> bool:
    """It waits for its start longer than usual, or for capacity that is not there."""
    if job.started_time is not None or job.final:
        return False
    if job.phase is Phase.WAITING_FOR_CAPACITY:
        return True
    return (now - job.created_time).total_seconds() > threshold_seconds
