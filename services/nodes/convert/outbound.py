"""To messages: answers to nodes, and facts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.common.v1 import resources_pb2
from junglegrid.nodes.v1 import (
    lease_pb2,
    node_event_pb2,
    node_internal_service_pb2,
    node_session_service_pb2,
)

from libs.bus import event
from libs.db import OutboxEvent
from libs.ids import IdSource
from services.nodes.config import NodesConfig
from services.nodes.domain import (
    Claim,
    Claimed,
    Closed,
    Closing,
    Exited,
    Fact,
    Gpu,
    Inventory,
    Lease,
    Node,
    NodeState,
    Opened,
    Phase,
    ProcessExit,
    Progressed,
    Resources,
    Started,
)
from services.nodes.session import Desired, Outgoing

pb = node_session_service_pb2


def lease_event(ids: IdSource, lease: Lease, fact: Fact, seq: int, now: datetime) -> OutboxEvent:
    """The record of one fact; all leases of a job share one history."""
    return event(
        ids,
        _lease_fact(lease, fact),
        aggregate_id=lease.job_id,
        aggregate_seq=seq,
        workspace_id=lease.workspace_id,
        occurred_time=now,
    )


def node_event(ids: IdSource, node: Node, now: datetime) -> OutboxEvent:
    """The record of a node as it is now."""
    return event(
        ids,
        node_event_pb2.NodeEvent(changed=_node(node)),
        aggregate_id=node.node_id,
        aggregate_seq=node.seq,
        workspace_id="",
        occurred_time=now,
    )


def to_sync_response(
    out: Outgoing, node_id: str, epoch: int, config: NodesConfig
) -> pb.SyncResponse:
    """One response of a session."""
    reply = out.reply
    response = pb.SyncResponse(
        ack_seq=reply.ack_seq,
        leases=[_desired(each) for each in reply.leases],
        full=reply.full,
        lease_ttl=_duration(config.lease_ttl_seconds),
        grants=[
            pb.GrantRenewal(lease_id=lease_id, attempt_grant=grant)
            for lease_id, grant in out.grants
        ],
        fenced=reply.fenced,
        final=reply.final,
    )
    if reply.welcome:
        response.welcome.CopyFrom(
            pb.Welcome(
                node_id=node_id,
                session_epoch=epoch,
                session_token=out.session_token,
                heartbeat_interval=_duration(config.heartbeat_seconds),
                lease_ttl=_duration(config.lease_ttl_seconds),
                stop_grace=_duration(config.stop_grace_seconds),
            )
        )
    return response


def to_claim(claim: Claim) -> pb.StartClaimResponse:
    """The decision; the launch passes through as jobs made it."""
    outcome = pb.ClaimOutcome.Value(f"CLAIM_OUTCOME_{claim.outcome.name}")
    response = pb.StartClaimResponse(outcome=outcome, attempt_grant=claim.grant)
    if claim.launch is not None:
        response.launch.CopyFrom(claim.launch)
        response.grant_expire_time.FromNanoseconds(int(claim.expires * 1e9))
    return response


def to_summary(node: Node, held: int) -> node_internal_service_pb2.NodeSummary:
    """A node for operators."""
    return node_internal_service_pb2.NodeSummary(
        node_id=node.node_id,
        node=_node(node),
        open_leases=held,
        last_seen_time=_time(node.renewed_time),
    )


def to_state(state: NodeState) -> node_event_pb2.NodeState.ValueType:
    """A node's state."""
    return node_event_pb2.NodeState.Value(f"NODE_STATE_{state.name}")


def _lease_fact(lease: Lease, fact: Fact) -> node_event_pb2.LeaseEvent:
    made, ref = node_event_pb2, _ref(lease)
    match fact:
        case Opened():
            return made.LeaseEvent(opened=_opened(lease, ref))
        case Claimed():
            return made.LeaseEvent(claimed=_claimed(lease, ref))
        case Progressed(phases):
            steps = made.LeaseProgressed(lease=ref, phases=_phases(phases))
            return made.LeaseEvent(progressed=steps)
        case Started(phases):
            started = made.LeaseStarted(
                lease=ref,
                started_time=_time(lease.started_time),
                phases=_phases(phases),
                runtime=lease.runtime,
            )
            return made.LeaseEvent(started=started)
        case Exited():
            exited = made.LeaseExited(
                lease=ref, exited_time=_time(lease.exited_time), exit=_exit(lease.exit)
            )
            return made.LeaseEvent(exited=exited)
        case Closed(closing):
            return made.LeaseEvent(closed=_closed(lease, closing, ref))


def _opened(lease: Lease, ref: node_event_pb2.LeaseRef) -> node_event_pb2.LeaseOpened:
    terms = lease.terms
    return node_event_pb2.LeaseOpened(
        lease=ref,
        region=terms.region,
        provider_name=terms.provider_name,
        price_micros_per_hour=terms.price_micros_per_hour,
        gpus=[_gpu(each) for each in terms.gpus],
        reservation_id=terms.reservation_id,
        simulated=terms.simulated,
    )


def _claimed(lease: Lease, ref: node_event_pb2.LeaseRef) -> node_event_pb2.LeaseClaimed:
    return node_event_pb2.LeaseClaimed(
        lease=ref,
        claimed_time=_time(lease.claimed_time),
        price_micros_per_hour=lease.terms.price_micros_per_hour,
        reservation_id=lease.terms.reservation_id,
        simulated=lease.terms.simulated,
    )


def _closed(
    lease: Lease, closing: Closing, ref: node_event_pb2.LeaseRef
) -> node_event_pb2.LeaseClosed:
    return node_event_pb2.LeaseClosed(
        lease=ref,
        outcome=lease_pb2.LeaseOutcome.Value(f"LEASE_OUTCOME_{closing.outcome.name}"),
        exit=_exit(lease.exit),
        claimed_time=_time(lease.claimed_time),
        started_time=_time(lease.started_time),
        exited_time=_time(lease.exited_time),
        closed_time=_time(lease.closed_time),
        artifacts=min(closing.artifacts, 2**31 - 1),
        artifact_bytes=closing.artifact_bytes,
        log_gap=closing.log_gap,
        message=closing.message,
        phases=_phases(closing.phases),
        price_micros_per_hour=lease.terms.price_micros_per_hour,
        reservation_id=lease.terms.reservation_id,
        simulated=lease.terms.simulated,
        missing_artifacts=closing.missing_artifacts,
        runtime=lease.runtime,
    )


def _ref(lease: Lease) -> node_event_pb2.LeaseRef:
    return node_event_pb2.LeaseRef(
        lease_id=lease.lease_id,
        job_id=lease.job_id,
        attempt=lease.attempt,
        task_index=lease.task_index,
        allocation_id=lease.allocation_id,
        node_id=lease.node_id,
        session_epoch=lease.session_epoch,
    )


def _node(node: Node) -> node_event_pb2.NodeChanged:
    return node_event_pb2.NodeChanged(
        state=to_state(node.state),
        inventory=_inventory(node.inventory),
        name=node.name,
        region=node.region,
        pool=node.pool,
        gpu_price_micros_per_hour=node.gpu_price_micros_per_hour,
        cpu_price_micros_per_hour=node.cpu_price_micros_per_hour,
        session_epoch=node.session_epoch,
        provider_id=node.provider_id,
        provider_name=node.provider_name,
    )


def _inventory(inventory: Inventory) -> lease_pb2.NodeInventory:
    return lease_pb2.NodeInventory(
        gpus=[_gpu(each) for each in inventory.gpus],
        cpu_millis=inventory.cpu_millis,
        memory_bytes=inventory.memory_bytes,
        disk_bytes=inventory.disk_bytes,
        runtimes=inventory.runtimes,
        isolation=inventory.isolation,
        daemon_version=inventory.daemon_version,
        slots=inventory.slots,
        simulated=inventory.simulated,
    )


def _desired(want: Desired) -> pb.DesiredLease:
    return pb.DesiredLease(
        lease_id=want.lease_id,
        job_id=want.job_id,
        attempt=want.attempt,
        task_index=want.task_index,
        stop=bool(want.stop_reason),
        stop_reason=want.stop_reason,
        resources=_resources(want.resources),
        gpus=[_gpu(each) for each in want.gpus],
    )


def _resources(needs: Resources) -> resources_pb2.Resources:
    found = resources_pb2.Resources(
        cpu_millis=needs.cpu_millis, memory_bytes=needs.memory_bytes, disk_bytes=needs.disk_bytes
    )
    if needs.gpu is not None:
        gpu = needs.gpu
        found.gpu.CopyFrom(
            resources_pb2.GpuRequest(
                count=gpu.count,
                memory_bytes_min=gpu.memory_bytes_min,
                gpu_type=gpu.gpu_type,
                gpu_class=gpu.gpu_class,
                vendor=gpu.vendor,
            )
        )
    return found


def _gpu(gpu: Gpu) -> resources_pb2.Gpu:
    return resources_pb2.Gpu(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        vendor=gpu.vendor,
        simulated=gpu.simulated,
    )


def _phases(phases: Sequence[Phase]) -> list[lease_pb2.PhaseReport]:
    return [
        lease_pb2.PhaseReport(
            phase=each.phase,
            message=each.message,
            level=each.level,
            node_time=_time(each.node_time),
        )
        for each in phases
    ]


def _exit(exit: ProcessExit | None) -> lease_pb2.ProcessExit | None:
    if exit is None:
        return None
    return lease_pb2.ProcessExit(
        code=exit.code,
        signal=exit.signal,
        timed_out=exit.timed_out,
        out_of_memory=exit.out_of_memory,
        stopped=exit.stopped,
        reason=exit.reason,
        started_node_time=_time(exit.started_node_time),
        finished_node_time=_time(exit.finished_node_time),
    )


def _time(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _duration(seconds: float) -> Duration:
    found = Duration()
    found.FromNanoseconds(int(seconds * 1e9))
    return found
