"""Messages that several conversations share: resources, constraints, times, enums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.common.v1 import resources_pb2 as common_pb
from junglegrid.jobs.v1 import job_pb2 as pb
from junglegrid.nodes.v1 import lease_pb2

from services.jobs.domain.job import Gpu
from services.jobs.domain.spec import Constraints, Resources
from services.jobs.domain.states import Outcome, Phase, Reason, Status

STATUS: Mapping[Status, pb.JobStatus.ValueType] = {
    status: pb.JobStatus.Value(f"JOB_STATUS_{status.name}") for status in Status
}
PHASE: Mapping[Phase, pb.JobPhase.ValueType] = {
    phase: pb.JobPhase.Value(f"JOB_PHASE_{phase.name}") for phase in Phase
}
REASON: Mapping[Reason, pb.TerminationReason.ValueType] = {
    reason: pb.TerminationReason.Value(
        f"TERMINATION_REASON_{reason.name if reason else 'UNSPECIFIED'}"
    )
    for reason in Reason
}
OUTCOME: Mapping[int, Outcome] = {
    lease_pb2.LeaseOutcome.Value(f"LEASE_OUTCOME_{outcome.name}"): outcome for outcome in Outcome
}


def set_time(target: Timestamp, time: datetime | None) -> None:
    """Fills `target`, a message field, or leaves it unset."""
    if time is not None:
        target.FromDatetime(time)


def time_of(found: Timestamp) -> datetime:
    """An aware UTC time."""
    return found.ToDatetime(UTC)


def resources(found: Resources) -> common_pb.Resources:
    """Needs of one task."""
    made = common_pb.Resources(
        cpu_millis=found.cpu_millis,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
    )
    gpu = found.gpu
    if gpu is not None:
        made.gpu.count = gpu.count
        made.gpu.memory_bytes_min = gpu.memory_bytes_min
        made.gpu.gpu_type = gpu.gpu_type
        made.gpu.gpu_class = gpu.gpu_class
        made.gpu.vendor = gpu.vendor
    return made


def constraints(found: Constraints) -> common_pb.Constraints:
    """Where a job may and would like to run."""
    return common_pb.Constraints(
        region=found.region,
        region_strict=found.region_strict,
        pool=found.pool,
        price_micros_per_hour_max=found.price_micros_per_hour_max,
        preferred_gpu_family=found.preferred_gpu_family,
        avoid_gpu_families=found.avoid_gpu_families,
        optimize_for=found.optimize_for,
        priority=found.priority,
        latency_priority=found.latency_priority,
        cost_priority=found.cost_priority,
    )


def gpu_of(found: Sequence[common_pb.Gpu]) -> Gpu | None:
    """The GPUs of a task, which are all of one kind."""
    if not found:
        return None
    first = found[0]
    simulated = any(each.simulated for each in found)
    return Gpu(first.vendor, first.name, len(found), first.memory_bytes, simulated)
