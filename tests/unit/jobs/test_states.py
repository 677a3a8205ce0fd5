"""The state machine: every pair of statuses, by the transitions that cause them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.jobs.domain import leases, moves
from services.jobs.domain.change import Change
from services.jobs.domain.job import (
    Attempt,
    Exit,
    Hold,
    Job,
    LeaseClosed,
    LeaseRef,
    LeaseStarted,
    Placement,
)
from services.jobs.domain.spec import Constraints, Resources, Spec
from services.jobs.domain.states import (
    ATTEMPT_MOVES,
    FINAL,
    MOVES,
    AttemptState,
    Outcome,
    Phase,
    Reason,
    Status,
)
from services.jobs.errors import IllegalMove

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = LeaseRef("lease_1", "job_1", 1, 0, "node_1", 1)
POLICY = leases.Policy(3)
SPEC = Spec(
    name="demo",
    image="image",
    workload_type="batch",
    command="true",
    args=(),
    resources=Resources(1000, 1, 1),
    constraints=Constraints(),
    timeout_seconds=60,
)


def job_in(status: Status) -> Job:
    job = Job("ws_1", "job_1", SPEC, NOW, NOW, NOW, status=status)
    return job if status is Status.PENDING else replace(job, attempt=1, activities=1)


def attempt_in(state: AttemptState) -> Attempt:
    return Attempt("ws_1", "job_1", 1, "lease_1", 1, Placement("node_1"), NOW, state=state)


ATTEMPT_OF = {Status.ASSIGNED: AttemptState.STARTING, Status.RUNNING: AttemptState.RUNNING}


def attempt_of(job: Job) -> Attempt:
    return attempt_in(ATTEMPT_OF.get(job.status, AttemptState.ASSIGNED))


def closed(job: Job, outcome: Outcome, code: int | None = None) -> Change:
    fact = LeaseClosed(outcome, NOW, exit=Exit(code) if code is not None else None)
    return leases.closed(job, attempt_of(job), LEASE, fact, POLICY)


# The transition that leads to each status, applied to a job in any status.
CAUSES: dict[Status, list[Callable[[Job], Change]]] = {
    Status.QUEUED: [
        lambda job: moves.queue(job, NOW, Hold(), ""),
        lambda job: closed(job, Outcome.NODE_LOST),
    ],
    Status.ASSIGNED: [lambda job: leases.opened(job, None, LEASE, Placement("node_1"), NOW)],
    Status.RUNNING: [
        lambda job: leases.started(job, attempt_in(AttemptState.STARTING), LEASE, LeaseStarted(NOW))
    ],
    Status.COMPLETED: [lambda job: closed(job, Outcome.EXITED, 0)],
    Status.FAILED: [lambda job: closed(job, Outcome.EXITED, 1)],
    Status.REJECTED: [lambda job: moves.reject(job, NOW, Reason.SCREENING, "no")],
    Status.CANCELLED: [lambda job: moves.cancel(job, NOW, "no", lease_open=False)],
}


@pytest.mark.parametrize("target", Status)
@pytest.mark.parametrize("source", Status)
def test_every_pair_is_as_moves_says(source: Status, target: Status) -> None:
    change = Change(job_in(source), NOW)
    if target in MOVES[source]:
        change.move(target)
        assert change.job.status is target
    else:
        with pytest.raises(IllegalMove):
            change.move(target)


@pytest.mark.parametrize("source", Status)
@pytest.mark.parametrize("target", CAUSES)
def test_transitions_never_leave_the_table(source: Status, target: Status) -> None:
    """A transition either makes a legal move, or is refused, or does nothing."""
    for cause in CAUSES[target]:
        try:
            change = cause(job_in(source))
        except IllegalMove:
            assert target not in MOVES[source]
            continue
        now = change.job.status
        assert now is source or now in MOVES[source]


@pytest.mark.parametrize("status", sorted(FINAL))
def test_final_absorbs_everything_that_nodes_say(status: Status) -> None:
    job = job_in(status)
    assert not MOVES[status]
    for state in AttemptState:
        attempt = attempt_in(state)
        changes = [
            leases.opened(job, None, LEASE, Placement("n"), NOW),
            leases.claimed(job, attempt, LEASE, NOW),
            leases.started(job, attempt, LEASE, LeaseStarted(NOW)),
            leases.exited(job, attempt, LEASE, NOW, Exit(0)),
            leases.closed(job, attempt, LEASE, LeaseClosed(Outcome.NODE_LOST, NOW), POLICY),
            leases.closed(job, attempt, LEASE, LeaseClosed(Outcome.EXITED, NOW), POLICY),
        ]
        for change in changes:
            assert change.job is job
            assert not change.activities
            assert not change.told


@pytest.mark.parametrize("state", AttemptState)
def test_every_attempt_state_takes_every_fact(state: AttemptState) -> None:
    """Late and repeated facts are harmless, in whatever state they find the attempt."""
    job = job_in(Status.RUNNING)
    attempt = attempt_in(state)
    for change in (
        leases.claimed(job, attempt, LEASE, NOW),
        leases.started(job, attempt, LEASE, LeaseStarted(NOW)),
        leases.exited(job, attempt, LEASE, NOW, Exit(0)),
        leases.closed(
            job, attempt, LEASE, LeaseClosed(Outcome.EXITED, NOW, started_time=NOW), POLICY
        ),
    ):
        assert change.attempt is not None
        assert change.attempt.state is state or change.attempt.state in ATTEMPT_MOVES[state]


@pytest.mark.parametrize("status", Status)
def test_another_attempt_s_lease_changes_nothing(status: Status) -> None:
    job = replace(job_in(status), attempt=2)
    attempt = attempt_in(AttemptState.STARTING)
    for change in (
        leases.started(job, attempt, LEASE, LeaseStarted(NOW)),
        leases.closed(job, attempt, LEASE, LeaseClosed(Outcome.EXITED, NOW), POLICY),
    ):
        assert change.job is job


def test_delay_is_told_by_phase_and_time() -> None:
    job = replace(job_in(Status.QUEUED), phase=Phase.QUEUED)
    assert not moves.delayed(job, NOW + timedelta(seconds=59), 60)
    assert moves.delayed(job, NOW + timedelta(seconds=61), 60)
    assert moves.delayed(replace(job, phase=Phase.WAITING_FOR_CAPACITY), NOW, 60)
    assert not moves.delayed(replace(job, started_time=NOW), NOW + timedelta(days=1), 60)
