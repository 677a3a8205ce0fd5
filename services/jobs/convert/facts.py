"""Records: our facts out, the facts of nodes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.jobs.v1 import job_event_pb2 as pb
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb

from libs.bus import event
from libs.db import OutboxEvent
from libs.ids import IdSource
from services.jobs.convert.shapes import (
    OUTCOME,
    REASON,
    STATUS,
    constraints,
    gpu_of,
    resources,
    time_of,
)
from services.jobs.domain.job import (
    Exit,
    Fact,
    Job,
    LeaseClosed,
    LeaseRef,
    LeaseStarted,
    PhaseReport,
    Placement,
    Queued,
    StopRequested,
)
from services.jobs.domain.states import Outcome


def teller(ids: IdSource) -> Callable[[Job, int, Fact, datetime], OutboxEvent]:
    """The function that makes the outbox row of a fact."""

    def tell(job: Job, number: int, fact: Fact, time: datetime) -> OutboxEvent:
        return event(
            ids,
            message(job, fact),
            aggregate_id=job.job_id,
            aggregate_seq=number,
            workspace_id=job.workspace_id,
            occurred_time=time,
        )

    return tell


def message(job: Job, fact: Fact) -> pb.JobEvent:
    """The event of a fact, without its metadata."""
    if isinstance(fact, Queued):
        return pb.JobEvent(queued=_queued(job, fact))
    if isinstance(fact, StopRequested):
        stop = pb.JobStopRequested(attempt=fact.attempt, reason=REASON[fact.reason])
        return pb.JobEvent(stop_requested=stop)
    finished = pb.JobFinished(
        status=STATUS[job.status],
        reason=REASON[job.reason],
        attempt=job.attempt,
        exit_code=job.exit_code,
        has_callback=job.spec.callback is not None,
        lease_open=fact.lease_open,
    )
    return pb.JobEvent(finished=finished)


def _queued(job: Job, fact: Queued) -> pb.JobQueued:
    queued = pb.JobQueued(
        attempt=fact.attempt,
        resources=resources(job.spec.resources),
        constraints=constraints(job.spec.constraints),
        tasks=job.spec.tasks,
        timeout_seconds=job.spec.timeout_seconds,
        reservation_id=job.hold.reservation_id,
        avoid_node_ids=fact.avoid_node_ids,
    )
    queued.submitted_time.FromDatetime(job.created_time)
    return queued


def lease(found: nodes_pb.LeaseRef) -> LeaseRef:
    """Which lease of which attempt."""
    return LeaseRef(
        lease_id=found.lease_id,
        job_id=found.job_id,
        attempt=found.attempt,
        task_index=found.task_index,
        node_id=found.node_id,
        session_epoch=found.session_epoch,
    )


def placement(found: nodes_pb.LeaseOpened) -> Placement:
    """Where the attempt runs."""
    return Placement(
        node_id=found.lease.node_id,
        region=found.region,
        provider=found.provider_name,
        price=found.price_micros_per_hour,
        gpu=gpu_of(found.gpus),
        simulated=found.simulated,
    )


def reports(found: Iterable[lease_pb2.PhaseReport]) -> tuple[PhaseReport, ...]:
    """Steps as the node saw them."""
    return tuple(PhaseReport(each.phase, each.message, _level(each.level)) for each in found)


def started(found: nodes_pb.LeaseStarted) -> LeaseStarted:
    """The process runs."""
    return LeaseStarted(time_of(found.started_time), reports(found.phases), found.runtime)


def exit_of(found: lease_pb2.ProcessExit) -> Exit:
    """How the process ended."""
    return Exit(
        code=found.code,
        signal=found.signal,
        timed_out=found.timed_out,
        out_of_memory=found.out_of_memory,
        stopped=found.stopped,
        reason=found.reason,
    )


def closed(found: nodes_pb.LeaseClosed) -> LeaseClosed:
    """How the lease ended. An outcome that this release does not know is taken for the grid's own
    failure: it is tried again."""
    return LeaseClosed(
        outcome=OUTCOME.get(found.outcome, Outcome.RUNTIME_FAILED),
        closed_time=time_of(found.closed_time),
        exit=exit_of(found.exit) if found.HasField("exit") else None,
        claimed_time=_time(found, "claimed_time"),
        started_time=_time(found, "started_time"),
        exited_time=_time(found, "exited_time"),
        artifacts=found.artifacts,
        log_gap=found.log_gap,
        message=found.message,
        phases=reports(found.phases),
        missing_artifacts=tuple(found.missing_artifacts),
        runtime=found.runtime,
    )


def _time(found: nodes_pb.LeaseClosed, name: str) -> datetime | None:
    value: Timestamp = getattr(found, name)
    return time_of(value) if found.HasField(name) else None  # type: ignore[arg-type]


def _level(level: str) -> str:
    return level if level in ("info", "warning", "error") else "info"
