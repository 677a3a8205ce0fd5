"""Estimates and quotes."""

from __future__ import annotations

from junglegrid.jobs.v1 import job_estimate_pb2 as pb
from junglegrid.scheduling.v1 import scheduling_service_pb2 as scheduling_pb

from services.jobs.convert.shapes import gpu_of, set_time, time_of
from services.jobs.domain.checks import Screening
from services.jobs.domain.classify import Classification
from services.jobs.domain.estimate import RANGE_CONFIDENCE, RunTime
from services.jobs.domain.inspect import Inspection
from services.jobs.domain.money import cost_micros
from services.jobs.domain.quote import Quote
from services.jobs.domain.vram import GB

LIVE, MANAGED, NONE = "live_capacity", "managed_capacity_profile", "none"
EXPLANATION = (
    "The price is that of the nodes that fit; the run time is the usual range for this kind of"
    " work, cut at timeout_seconds, because there is no history of like jobs."
)
GUESSED = (
    "No node that is online fits. The price is a usual one for such a GPU, 0 where none is known; "
    "a submit waits for a node and holds credit up to the operator's limit, or to "
    "max_price_per_hour."
)


def quote(found: scheduling_pb.QuoteResponse) -> Quote:
    """Scheduling's answer."""
    return Quote(
        live_candidates=found.live_candidate_count,
        immediate=found.immediate,
        managed_profiles=found.managed_profile_count,
        price=found.price_micros_per_hour,
        price_min=found.price_micros_per_hour_min,
        price_max=found.price_micros_per_hour_max,
        price_ceiling=found.price_micros_per_hour_ceiling,
        gpu=gpu_of([found.gpu]) if found.HasField("gpu") else None,
        region=found.region,
        tier=found.tier,
        gpu_family=found.gpu_family,
        wait_seconds_min=found.queue_wait_seconds_min,
        wait_seconds_max=found.queue_wait_seconds_max,
        start_min=time_of(found.start_time_min) if found.HasField("start_time_min") else None,
        start_max=time_of(found.start_time_max) if found.HasField("start_time_max") else None,
        relaxed=tuple(found.relaxed),
        unavailable_code=found.unavailable_code,
        unavailable_reason=found.unavailable_reason,
        simulated=found.simulated,
    )


def estimate(
    inspection: Inspection, screening_found: Screening, found: Quote, times: RunTime
) -> pb.EstimateJobResponse:
    """The reply to EstimateJob."""
    gpu, spec = found.gpu, inspection.spec
    tasks = spec.tasks
    need = spec.resources.gpu
    low, high = found.price_min or found.price, found.price_max or found.price
    reply = pb.EstimateJobResponse(
        available=screening_found.can_submit and found.fits,
        routed_gpu_tier=found.tier,
        likely_gpu_type=gpu.name if gpu is not None else "",
        likely_gpu_family=found.gpu_family,
        estimated_hourly_rate_usd=found.price * tasks,
        estimated_hourly_rate_min_usd=low * tasks,
        estimated_hourly_rate_max_usd=high * tasks,
        estimated_cost_min_usd=cost_micros(low * tasks, times.least),
        estimated_cost_max_usd=cost_micros(high * tasks, times.most),
        estimated_cost_usd=cost_micros(found.price * tasks, times.likely),
        estimated_queue_wait_min_sec=found.wait_seconds_min,
        estimated_queue_wait_max_sec=found.wait_seconds_max,
        estimated_runtime_min_minutes=times.least / 60,
        estimated_runtime_max_minutes=times.most / 60,
        classification=classification(inspection.classification),
        routing=routing(found),
        capacity=capacity(found),
        capacity_status=capacity_status(found),
        screening=screening(screening_found),
        warnings=screening_found.warnings,
        constraints_relaxed=found.relaxed,
        constraints_relaxed_applied=bool(found.relaxed),
        candidate_count=found.live_candidates,
        confidence=RANGE_CONFIDENCE,
        explanation=EXPLANATION if found.fits else GUESSED,
        unavailable_code=found.unavailable_code,
        unavailable_reason=found.unavailable_reason,
        required_vram_gb=round(need.memory_bytes_min / GB, 3) if need is not None else 0.0,
        simulated=found.simulated,
    )
    set_time(reply.estimated_start_time_min, found.start_min)
    set_time(reply.estimated_start_time_max, found.start_max)
    return reply


def classification(found: Classification) -> pb.Classification:
    """What kind of work it is."""
    return pb.Classification(
        workload_type=found.workload_type,
        requires_gpu=found.requires_gpu,
        acceleration_requirement=found.acceleration,
        confidence=found.confidence,
        reasons=found.reasons,
    )


def screening(found: Screening) -> pb.Screening:
    """All findings."""
    return pb.Screening(
        status=found.status,
        can_submit=found.can_submit,
        checks=[
            pb.ScreeningCheck(
                severity=check.severity,
                status=check.status,
                code=check.code,
                field=check.field,
                message=check.message,
                action=check.action,
            )
            for check in found.checks
        ],
        fixes=found.fixes,
    )


def routing(found: Quote) -> pb.Routing:
    """Where it would run."""
    source = _source(found)
    status = {LIVE: "available", MANAGED: "provisionable", NONE: "unavailable"}[source]
    reasons = {
        LIVE: "A node that is online fits.",
        MANAGED: "A node that fits can be made.",
        NONE: found.unavailable_reason or "No node that fits is online.",
    }
    return pb.Routing(
        route_status=status,
        selected_route_source=source,
        selected_accelerator=found.gpu.name if found.gpu is not None else "",
        selection_reason=reasons[source],
        selected_region=found.region,
    )


def capacity(found: Quote) -> pb.Capacity:
    """Counts behind the routing."""
    return pb.Capacity(
        live_capacity_available=found.immediate,
        live_candidate_count=found.live_candidates,
        managed_capacity_available=found.managed_profiles > 0,
        managed_profile_count=found.managed_profiles,
        estimate_source=_source(found),
    )


def capacity_status(found: Quote) -> pb.CapacityStatus:
    """One word on capacity."""
    late = "limited" if found.fits else "unavailable"
    word = "available" if found.immediate else late
    return pb.CapacityStatus(availability=word, immediate_capacity_confirmed=found.immediate)


def _source(found: Quote) -> str:
    if not found.fits:
        return NONE
    return LIVE if found.live_candidates else MANAGED
