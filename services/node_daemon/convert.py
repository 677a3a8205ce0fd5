"""Between the grid's messages and the daemon's own nouns; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.jobs.v1 import launch_pb2
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_session_service_pb2 as pb

from services.node_daemon import domain
from services.node_daemon.domain import Want
from services.node_daemon.runtime.port import Exit, ExitReason, Phase, TaskLaunch

_SENTENCE_LETTERS_MAX = 500
_LOG_BYTES_MAX = 64 * 1024 * 1024


def task_launch(want: Want, spec: launch_pb2.LaunchSpec) -> TaskLaunch:
    """What the runtime is to run."""
    argv = (spec.command, *spec.args) if spec.command else tuple(spec.args)
    return TaskLaunch(
        lease_id=want.lease_id,
        job_id=want.job_id,
        attempt=want.attempt,
        task_index=want.task_index,
        image=spec.image,
        argv=argv,
        environment=dict(spec.environment),
        cpu_millis=spec.resources.cpu_millis,
        memory_bytes=spec.resources.memory_bytes,
        disk_bytes=spec.resources.disk_bytes,
        gpu_indices=want.gpu_indices,
        timeout_seconds=float(spec.timeout_seconds),
        log_bytes_max=spec.log_bytes_max or _LOG_BYTES_MAX,
    )


def phase_report(phase: Phase, message: str, details: Mapping[str, Any]) -> lease_pb2.PhaseReport:
    """A step of a runtime, now."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return lease_pb2.PhaseReport(
        phase=phase.value,
        message=message[:_SENTENCE_LETTERS_MAX],
        level="warning" if details.get("level") == "warning" else "info",
        node_time=stamp,
    )


def want(told: pb.DesiredLease) -> Want:
    """A lease as the grid wants it here."""
    return Want(
        lease_id=told.lease_id,
        job_id=told.job_id,
        attempt=told.attempt,
        task_index=told.task_index,
        stop=told.stop,
        stop_reason=told.stop_reason,
        cpu_millis=told.resources.cpu_millis,
        memory_bytes=told.resources.memory_bytes,
        disk_bytes=told.resources.disk_bytes,
        gpu_indices=tuple(gpu.index for gpu in told.gpus),
        runtime=told.runtime,
    )


def process_exit(ended: Exit) -> lease_pb2.ProcessExit:
    """How a process ended."""
    found = lease_pb2.ProcessExit(
        code=domain.exit_code(ended.code, ended.signal),
        signal=ended.signal or 0,
        timed_out=ended.timed_out,
        out_of_memory=ended.oom_killed,
        stopped=ended.reason is ExitReason.STOPPED,
        reason=ended.message[:_SENTENCE_LETTERS_MAX],
    )
    if ended.started_time is not None:
        found.started_node_time.FromDatetime(ended.started_time)
    if ended.finished_time is not None:
        found.finished_node_time.FromDatetime(ended.finished_time)
    return found
