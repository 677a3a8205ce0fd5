"""Between protos and scheduling's own words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.common.v1 import resources_pb2 as common_pb
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2
from junglegrid.nodes.v1 import lease_pb2, node_event_pb2
from junglegrid.scheduling.v1 import placement_event_pb2 as event_pb
from junglegrid.scheduling.v1 import scheduling_service_pb2 as pb

from libs.bus import event
from libs.db import OutboxEvent
from libs.ids import IdSource
from services.scheduling.domain import (
    DEFAULT_POOL,
    GPUS_MAX,
    Entry,
    Gpu,
    Hold,
    NodeInfo,
    Placed,
    Quote,
    Shape,
    Waiting,
    mode_of,
)

_NODE_FAULTS = frozenset(
    {
        lease_pb2.LEASE_OUTCOME_NODE_LOST,
        lease_pb2.LEASE_OUTCOME_ABANDONED,
        lease_pb2.LEASE_OUTCOME_RUNTIME_FAILED,
        lease_pb2.LEASE_OUTCOME_RUNTIME_LOST,
        lease_pb2.LEASE_OUTCOME_NODE_REFUSED,
    }
)


def event_maker(ids: IdSource) -> Callable[[Placed], OutboxEvent]:
    """How a placement becomes a row of the outbox."""

    def tell(placed: Placed) -> OutboxEvent:
        entry = placed.placement.entry
        return event(
            ids,
            to_event(placed),
            aggregate_id=entry.job_id,
            aggregate_seq=placed.seq,
            workspace_id=entry.workspace_id,
            occurred_time=placed.time,
        )

    return tell


def to_event(placed: Placed) -> event_pb.PlacementEvent:
    """The message of a placement, without its meta."""
    placement = placed.placement
    entry = placement.entry
    return event_pb.PlacementEvent(
        placed=event_pb.PlacementCommitted(
            placement_id=placed.placement_id,
            attempt=entry.attempt,
            allocations=[
                to_allocation(hold, entry.shape, placed.gpus[hold.allocation_id])
                for hold in placement.holds
            ],
            price_micros_per_hour=placement.price_micros_per_hour,
            reservation_id=entry.reservation_id,
            timeout_seconds=entry.timeout_seconds,
            simulated=placement.simulated,
            relaxed=placement.relaxed,
        )
    )


def to_allocation(hold: Hold, shape: Shape, gpus: tuple[Gpu, ...]) -> event_pb.Allocation:
    """What one task holds."""
    return event_pb.Allocation(
        allocation_id=hold.allocation_id,
        task_index=hold.task_index,
        node_id=hold.node_id,
        resources=_resources(shape),
        gpus=[to_gpu(gpu) for gpu in gpus],
    )


def _resources(shape: Shape) -> common_pb.Resources:
    made = common_pb.Resources(
        cpu_millis=shape.cpu_millis, memory_bytes=shape.memory_bytes, disk_bytes=shape.disk_bytes
    )
    if shape.gpu_count:
        made.gpu.count = shape.gpu_count
        made.gpu.memory_bytes_min = shape.gpu_memory_min
        made.gpu.gpu_type = shape.gpu_type
        made.gpu.gpu_class = shape.gpu_class
        made.gpu.vendor = shape.vendor
    return made


def to_gpu(gpu: Gpu) -> common_pb.Gpu:
    """One GPU."""
    return common_pb.Gpu(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        vendor=gpu.vendor,
        simulated=gpu.simulated,
    )


def shape(
    resources: common_pb.Resources, constraints: common_pb.Constraints, runtime: str = ""
) -> Shape:
    """What one task needs and where."""
    gpu = resources.gpu if resources.HasField("gpu") else common_pb.GpuRequest()
    return Shape(
        cpu_millis=resources.cpu_millis,
        memory_bytes=resources.memory_bytes,
        disk_bytes=resources.disk_bytes,
        gpu_count=max(gpu.count, 1) if resources.HasField("gpu") else 0,
        gpu_memory_min=gpu.memory_bytes_min,
        gpu_type=gpu.gpu_type.lower(),
        gpu_class=gpu.gpu_class.lower(),
        vendor=gpu.vendor.lower(),
        region=constraints.region.lower(),
        region_strict=constraints.region_strict,
        pool=constraints.pool or DEFAULT_POOL,
        price_max=constraints.price_micros_per_hour_max,
        preferred_family=constraints.preferred_gpu_family.lower(),
        avoid_families=tuple(sorted(name.lower() for name in constraints.avoid_gpu_families)),
        mode=mode_of(
            constraints.optimize_for,
            constraints.priority,
            constraints.latency_priority,
            constraints.cost_priority,
        ),
        runtime=runtime,
    )


def entry(meta: EventMeta, fact: job_event_pb2.JobQueued) -> Entry:
    """An attempt that waits."""
    return Entry(
        workspace_id=meta.workspace_id,
        job_id=meta.aggregate_id,
        attempt=fact.attempt,
        shape=shape(fact.resources, fact.constraints, fact.runtime),
        tasks=max(fact.tasks, 1),
        submitted_time=_time(fact.submitted_time),
        timeout_seconds=fact.timeout_seconds,
        reservation_id=fact.reservation_id,
        avoid=frozenset(fact.avoid_node_ids),
    )


def failed_node(fact: node_event_pb2.LeaseClosed) -> str:
    """The node of a lease that ended by no fault of the job, else nothing."""
    return fact.lease.node_id if fact.outcome in _NODE_FAULTS else ""


def node(meta: EventMeta, fact: node_event_pb2.NodeChanged) -> NodeInfo:
    """A node as it is now."""
    there = fact.inventory
    return NodeInfo(
        node_id=meta.aggregate_id,
        open=fact.state == node_event_pb2.NODE_STATE_ONLINE,
        region=fact.region.lower(),
        pool=fact.pool or DEFAULT_POOL,
        runtimes=tuple(there.runtimes),
        gpus=tuple(_gpu(each) for each in there.gpus[:GPUS_MAX]),
        cpu_millis=there.cpu_millis,
        memory_bytes=there.memory_bytes,
        disk_bytes=there.disk_bytes,
        slots=there.slots,
        gpu_price=fact.gpu_price_micros_per_hour,
        cpu_price=fact.cpu_price_micros_per_hour,
        simulated=there.simulated,
        event_seq=meta.aggregate_seq,
    )


def _gpu(found: common_pb.Gpu) -> Gpu:
    return Gpu(
        found.index, found.uuid, found.name, found.memory_bytes, found.vendor, found.simulated
    )


def to_quote(found: Quote, now: datetime) -> pb.QuoteResponse:
    """A quote; the window of the start is counted from `now`."""
    reply = pb.QuoteResponse(
        live_candidate_count=found.candidates,
        immediate=found.immediate,
        price_micros_per_hour=found.price,
        price_micros_per_hour_min=found.price_min,
        price_micros_per_hour_max=found.price_max,
        price_micros_per_hour_ceiling=found.ceiling,
        gpu=to_gpu(found.gpu) if found.gpu is not None else None,
        region=found.region,
        tier=found.tier,
        gpu_family=found.gpu_family,
        queue_depth=found.queue_depth,
        queue_wait_seconds_min=found.wait_seconds_min,
        queue_wait_seconds_max=found.wait_seconds_max,
        relaxed=found.relaxed,
        unavailable_code=found.unavailable_code,
        unavailable_reason=found.unavailable_reason,
        simulated=found.simulated,
    )
    if not found.unavailable_code:
        reply.start_time_min.FromDatetime(now + timedelta(seconds=found.wait_seconds_min))
        reply.start_time_max.FromDatetime(now + timedelta(seconds=found.wait_seconds_max))
    return reply


def to_waiting(found: Waiting) -> pb.ExplainQueueEntryResponse:
    """Why a job waits."""
    return pb.ExplainQueueEntryResponse(
        queued=found.queued, position=found.position, code=found.code, message=found.message
    )


def since(request: pb.RepublishPlacementsRequest) -> datetime:
    """From when to publish again; from the beginning when unset."""
    return _time(request.range.since_time)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
