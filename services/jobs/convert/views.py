"""Replies about one or many jobs."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct
from junglegrid.jobs.v1 import job_pb2 as jobs_pb
from junglegrid.jobs.v1 import job_service_pb2 as service_pb
from junglegrid.jobs.v1 import job_view_pb2 as pb

from services.jobs.convert.shapes import PHASE, STATUS, set_time
from services.jobs.domain.activity import public_id, sequence
from services.jobs.domain.job import Activity, Attempt, Failure, Gpu, Job
from services.jobs.domain.shown import Detail
from services.jobs.domain.spec import ARTIFACTS
from services.jobs.domain.states import Phase
from services.jobs.domain.submitted import ROUTE, Submitted
from services.jobs.domain.vram import GB
from services.jobs.domain.words import delay_reason, status_message


def submitted(found: Submitted) -> service_pb.SubmitJobResponse:
    """The 202."""
    reply = service_pb.SubmitJobResponse(
        job_id=found.job_id,
        status=STATUS[found.status],
        execution_route=ROUTE,
        route_reason=found.route_reason,
        artifact_contract=artifact_contract(found.artifacts),
        requested_route=found.requested_route,
        initial_route=ROUTE,
        effective_route=ROUTE,
        constraint_mask=found.relaxed,
        estimated_hourly_rate_usd=found.hourly,
        reserved_usd=found.reserved,
        client_id=found.client_id,
    )
    reply.queued_at.FromDatetime(found.queued_time)
    return reply


def artifact_contract(paths: Sequence[str]) -> pb.ArtifactContract:
    """What will be collected."""
    return pb.ArtifactContract(
        expected_artifacts=[
            pb.ExpectedArtifact(path=path, filename=path.rpartition("/")[2], required=True)
            for path in paths
        ],
        automatic_collection_dir=ARTIFACTS,
    )


def job_view(found: Detail) -> pb.JobView:
    """One job as list and get show it."""
    job = found.job
    spec, place = job.spec, job.placement
    view = pb.JobView(
        job_id=job.job_id,
        client_id=spec.client_id,
        name=spec.name,
        image=spec.image,
        workload_type=spec.workload_type,
        status=STATUS[job.status],
        phase=PHASE[job.phase],
        status_message=status_message(job),
        status_reason=job.status_reason,
        wait_duration_seconds=_waited(found),
        delayed_start=found.delayed,
        artifacts_ready=job.artifacts_ready,
        retry_count=max(job.attempt - 1, 0),
        attempts=[attempt_view(each) for each in found.attempts],
        exit_code=job.exit_code,
        timed_out=job.timed_out,
        assigned_node_id=place.node_id if place else "",
        provider=place.provider if place else "",
        selected_region=place.region if place else "",
        billing=_billing(job),
        cost_usd=_total(job),
        requested_route=spec.constraints.optimize_for or "balanced",
        initial_route=ROUTE,
        effective_route=ROUTE,
        route_status="unavailable" if job.waiting else "available",
        runtime=place.runtime if place else "",
        simulated=place.simulated if place else False,
        artifact_contract=artifact_contract(spec.expected_artifacts),
        duration_ms=_duration_ms(found),
    )
    _fill(view, found)
    return view


def _fill(view: pb.JobView, found: Detail) -> None:
    """The message fields that may be absent."""
    job = found.job
    place = job.placement
    set_time(view.phase_started_at, job.phase_time)
    set_time(view.phase_last_updated_at, job.updated_time)
    set_time(view.created_at, job.created_time)
    if job.queued_time is not None:
        view.queued_at.FromDatetime(job.queued_time)
    if job.started_time is not None:
        view.started_at.FromDatetime(job.started_time)
    if job.finished_time is not None:
        view.finished_at.FromDatetime(job.finished_time)
    view.scheduling.CopyFrom(
        pb.SchedulingView(
            state=job.phase.value,
            worker_assigned=place is not None,
            delayed_start=found.delayed,
            node_id=place.node_id if place else "",
            region=place.region if place else "",
            provider=place.provider if place else "",
        )
    )
    if found.delayed:
        code, sentence = delay_reason(job)
        view.delay_reason.CopyFrom(pb.DelayReason(code=code, message=sentence))
    if job.failure is not None:
        view.failure.CopyFrom(_failure(job.failure, found.excerpt))
    if place is not None and place.gpu is not None:
        view.gpu.CopyFrom(_gpu(place.gpu))
    metadata = Struct()
    if job.spec.metadata:
        metadata.update(job.spec.metadata)
    view.metadata.CopyFrom(metadata)


def attempt_view(found: Attempt) -> pb.AttemptView:
    """One attempt."""
    view = pb.AttemptView(
        attempt=found.number,
        state=found.state.value,
        node_id=found.placement.node_id,
        exit_code=found.exit.code if found.exit is not None else None,
        reason=found.reason,
    )
    view.assigned_at.FromDatetime(found.assigned_time)
    if found.started_time is not None:
        view.started_at.FromDatetime(found.started_time)
    if found.finished_time is not None:
        view.finished_at.FromDatetime(found.finished_time)
    return view


def activity(job: Job, found: Activity) -> jobs_pb.JobActivity:
    """One lifecycle event."""
    view = jobs_pb.JobActivity(
        id=public_id(job.job_id, found.name, found.ordinal),
        job_id=job.job_id,
        type=f"job.{found.name}",
        phase=PHASE[found.phase],
        title=found.title,
        message=found.message,
        source=found.source,
        level=found.level,
        sequence=sequence(found.position),
        attempt=found.attempt,
    )
    view.created_at.FromDatetime(found.time)
    return view


def _waited(found: Detail) -> int:
    job = found.job
    end = job.started_time or job.finished_time or found.now
    return max(int((end - job.created_time).total_seconds()), 0)


def _duration_ms(found: Detail) -> int | None:
    job = found.job
    if job.started_time is None:
        return None
    end = job.finished_time or found.now
    if job.phase in (Phase.CLEANUP, Phase.TERMINAL) and found.attempts:
        end = found.attempts[-1].exited_time or end
    return max(int((end - job.started_time).total_seconds() * 1000), 0)


def _total(job: Job) -> int | None:
    """What it cost. A job that ended before any node had it costs nothing, and billing, which
    settles attempts, never says so."""
    if job.cost.total is None and job.final and job.placement is None:
        return 0
    return job.cost.total


def _billing(job: Job) -> pb.BillingView:
    hourly = job.cost.hourly or (job.placement.price if job.placement else job.hold.hourly)
    return pb.BillingView(
        final_cost_usd=_total(job) if job.final else None,
        reserved_usd=job.hold.amount if job.hold.reservation_id else 0,
        hourly_rate_usd=hourly,
        billed_seconds=job.cost.billed_micros / 1_000_000,
        currency="USD",
    )


def _failure(found: Failure, excerpt: str) -> pb.FailureView:
    return pb.FailureView(
        code=found.code, summary=found.summary, stage=found.stage, log_excerpt=excerpt
    )


def _gpu(found: Gpu) -> pb.GpuView:
    return pb.GpuView(
        vendor=found.vendor,
        name=found.name,
        count=found.count,
        memory_gb=round(found.memory_bytes / GB, 3),
        simulated=found.simulated,
    )
