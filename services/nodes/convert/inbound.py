"""From messages. A node may lie: numbers are clamped, words are cut and cleaned, times that no
calendar has are dropped. What then still does not fit its lease is refused by the domain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.common.v1 import resources_pb2
from junglegrid.jobs.v1 import job_pb2
from junglegrid.nodes.v1 import lease_pb2, node_internal_service_pb2, node_session_service_pb2
from junglegrid.scheduling.v1 import placement_event_pb2

from libs.errors import InvalidRequest
from services.nodes.domain import (
    Closing,
    Gpu,
    GpuNeed,
    Hello,
    Inventory,
    LeaseState,
    NodeReport,
    Outcome,
    Phase,
    Placement,
    ProcessExit,
    Report,
    Resources,
    Slot,
    TokenDraft,
)

WORD_LETTERS_MAX = 128
SENTENCE_LETTERS_MAX = 500
PHASES_MAX = 50
MISSING_MAX = 100
PATH_LETTERS_MAX = 512
GPUS_MAX = 64
RUNTIMES_MAX = 8
_INT64_MAX = 2**63 - 1
_EXIT_CODE_MAX = 255
_PHASES = frozenset(
    {
        "container_starting",
        "runtime_preparation",
        "image_download",
        "workload_execution",
        "running",
        "cleanup",
        "notice",
    }
)
_RUNTIMES = frozenset({"docker", "sandbox", "simulated"})
_STATES = {
    lease_pb2.LEASE_STATE_STARTING: LeaseState.STARTING,
    lease_pb2.LEASE_STATE_RUNNING: LeaseState.RUNNING,
    lease_pb2.LEASE_STATE_EXITED: LeaseState.EXITED,
}
_OUTCOMES = {
    lease_pb2.LEASE_OUTCOME_EXITED: Outcome.EXITED,
    lease_pb2.LEASE_OUTCOME_CANCELLED: Outcome.CANCELLED,
    lease_pb2.LEASE_OUTCOME_ABANDONED: Outcome.ABANDONED,
    lease_pb2.LEASE_OUTCOME_RUNTIME_FAILED: Outcome.RUNTIME_FAILED,
    lease_pb2.LEASE_OUTCOME_RUNTIME_LOST: Outcome.RUNTIME_LOST,
    lease_pb2.LEASE_OUTCOME_IMAGE_UNAVAILABLE: Outcome.IMAGE_UNAVAILABLE,
    lease_pb2.LEASE_OUTCOME_NODE_REFUSED: Outcome.NODE_REFUSED,
    lease_pb2.LEASE_OUTCOME_LAUNCH_INVALID: Outcome.LAUNCH_INVALID,
}


def word(text: str, letters_max: int = WORD_LETTERS_MAX) -> str:
    """One line of printable text, cut to a length."""
    short = text[: letters_max * 4]
    if not short.isprintable():
        short = "".join(letter if letter.isprintable() else " " for letter in short)
    return " ".join(short.split())[:letters_max]


def region(text: str) -> str:
    """A region in the form in which jobs ask for it."""
    return word(text).lower()


def hello(request: Any) -> Hello:
    """The first word of a stream."""
    held = tuple(word(each) for each in request.hello.held_lease_ids)
    return Hello(word(request.hello.daemon_version), held)


def node_report(request: Any, leases_max: int) -> NodeReport:
    """One SyncRequest. Raises InvalidRequest for more leases than a node can hold."""
    if len(request.leases) > leases_max:
        raise InvalidRequest(f"a report names at most {leases_max} leases")
    told = request.inventory if request.HasField("inventory") else None
    return NodeReport(
        seq=request.seq,
        leases=tuple(_report(each) for each in request.leases if each.state in _STATES),
        draining=request.draining,
        inventory=None if told is None else inventory(told),
    )


def inventory(told: lease_pb2.NodeInventory) -> Inventory:
    """What a node says it is. Simulated is catching: one such GPU makes the node so."""
    gpus = tuple(_gpu(each) for each in told.gpus[:GPUS_MAX])
    return Inventory(
        gpus=gpus,
        cpu_millis=_count(told.cpu_millis),
        memory_bytes=_count(told.memory_bytes),
        disk_bytes=_count(told.disk_bytes),
        runtimes=tuple(each for each in told.runtimes[:RUNTIMES_MAX] if each in _RUNTIMES),
        isolation=tuple(word(each) for each in told.isolation[:GPUS_MAX]),
        daemon_version=word(told.daemon_version),
        slots=_count(told.slots),
        simulated=told.simulated or any(gpu.simulated for gpu in gpus),
    )


def closing(request: node_session_service_pb2.CompleteRequest) -> Closing:
    """A node's word that a lease is over."""
    if request.outcome not in _OUTCOMES:
        raise InvalidRequest("outcome must be one that a node may give")
    return Closing(
        outcome=_OUTCOMES[request.outcome],
        exit=_exit(request.exit) if request.HasField("exit") else None,
        artifacts=_count(request.artifacts),
        artifact_bytes=_count(request.artifact_bytes),
        log_gap=request.log_gap,
        message=word(request.message, SENTENCE_LETTERS_MAX),
        phases=_phases(request.phases),
        missing_artifacts=tuple(
            word(each, PATH_LETTERS_MAX) for each in request.missing_artifacts[:MISSING_MAX]
        ),
        runtime=_runtime(request.runtime),
    )


def token_draft(request: node_internal_service_pb2.CreateEnrolmentTokenRequest) -> TokenDraft:
    """What an operator grants."""
    life = request.life.ToNanoseconds() / 1e9 if request.HasField("life") else 0.0
    return TokenDraft(
        provider_id=request.provider_id,
        provider_name=word(request.provider_name),
        pool=word(request.pool).lower(),
        gpu_price_micros_per_hour=request.gpu_price_micros_per_hour,
        cpu_price_micros_per_hour=request.cpu_price_micros_per_hour,
        life_seconds=life,
    )


def placement(job_id: str, fact: placement_event_pb2.PlacementCommitted) -> Placement:
    """Nodes chosen for an attempt."""
    return Placement(
        placement_id=fact.placement_id,
        job_id=job_id,
        attempt=fact.attempt,
        slots=[_slot(each) for each in fact.allocations],
        price_micros_per_hour=fact.price_micros_per_hour,
        reservation_id=fact.reservation_id,
        timeout_seconds=fact.timeout_seconds,
        simulated=fact.simulated,
    )


def stop_reason(reason: job_pb2.TerminationReason.ValueType) -> str:
    """`user`, `deadline`, ...; `finished` when there is none."""
    name = job_pb2.TerminationReason.Name(reason).removeprefix("TERMINATION_REASON_").lower()
    return "finished" if name == "unspecified" else name


def _slot(allocation: placement_event_pb2.Allocation) -> Slot:
    needs = allocation.resources
    return Slot(
        allocation_id=allocation.allocation_id,
        task_index=allocation.task_index,
        node_id=allocation.node_id,
        resources=Resources(
            needs.cpu_millis,
            needs.memory_bytes,
            needs.disk_bytes,
            _need(needs.gpu) if needs.HasField("gpu") else None,
        ),
        gpus=tuple(_gpu(each) for each in allocation.gpus),
    )


def _need(gpu: resources_pb2.GpuRequest) -> GpuNeed:
    return GpuNeed(gpu.count, gpu.memory_bytes_min, gpu.gpu_type, gpu.gpu_class, gpu.vendor)


def _gpu(told: resources_pb2.Gpu) -> Gpu:
    return Gpu(
        index=_count(told.index),
        uuid=word(told.uuid),
        name=word(told.name),
        memory_bytes=_count(told.memory_bytes),
        vendor=word(told.vendor).lower(),
        simulated=told.simulated,
    )


def _report(told: node_session_service_pb2.LeaseReport) -> Report:
    return Report(
        lease_id=told.lease_id,
        state=_STATES[told.state],
        phases=_phases(told.phases),
        exit=_exit(told.exit) if told.HasField("exit") else None,
        runtime=_runtime(told.runtime),
    )


def _phases(told: Iterable[lease_pb2.PhaseReport]) -> tuple[Phase, ...]:
    kept = [each for each in told if each.phase in _PHASES][:PHASES_MAX]
    return tuple(
        Phase(
            phase=each.phase,
            message=word(each.message, SENTENCE_LETTERS_MAX),
            level="warning" if each.level == "warning" else "info",
            node_time=_time(each.node_time) if each.HasField("node_time") else None,
        )
        for each in kept
    )


def _exit(told: lease_pb2.ProcessExit) -> ProcessExit:
    return ProcessExit(
        code=min(_count(told.code), _EXIT_CODE_MAX) if told.code >= 0 else _EXIT_CODE_MAX,
        signal=min(_count(told.signal), _EXIT_CODE_MAX),
        timed_out=told.timed_out,
        out_of_memory=told.out_of_memory,
        stopped=told.stopped,
        reason=word(told.reason, SENTENCE_LETTERS_MAX),
        started_node_time=_time(told.started_node_time)
        if told.HasField("started_node_time")
        else None,
        finished_node_time=_time(told.finished_node_time)
        if told.HasField("finished_node_time")
        else None,
    )


def _runtime(text: str) -> str:
    return text if text in _RUNTIMES else ""


def _count(number: int) -> int:
    return min(max(number, 0), _INT64_MAX)


def _time(stamp: Timestamp) -> datetime | None:
    try:
        found = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return found if found.year >= 1970 else None
