"""Between aggregates and the values of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from libs.db.types import from_micros, to_micros
from services.jobs.domain.job import (
    Activity,
    Attempt,
    Cost,
    Exit,
    Failure,
    Gpu,
    Hold,
    Job,
    Placement,
)
from services.jobs.domain.spec import (
    Callback,
    Constraints,
    GpuNeed,
    InputFile,
    Resources,
    Spec,
)
from services.jobs.domain.states import AttemptState, Phase, Reason, Status

Values = dict[str, Any]


def job_values(job: Job) -> Values:
    """All columns of a job's row."""
    return {
        "workspace_id": job.workspace_id,
        "job_id": job.job_id,
        "client_id": job.spec.client_id or None,
        "created_time": job.created_time,
        "spec": _spec(job.spec),
        **moving_values(job),
    }


def moving_values(job: Job) -> Values:
    """The columns that change."""
    return {
        "version": job.version,
        "status": job.status.value,
        "phase": job.phase.value,
        "attempt": job.attempt,
        "updated_time": job.updated_time,
        "submit_until": job.submit_until,
        "facts": job.facts,
        "activities": job.activities,
        "view": _view(job),
    }


def job_of(row: Any) -> Job:
    """The job in a row of `jobs`."""
    view = row.view
    return Job(
        workspace_id=row.workspace_id,
        job_id=row.job_id,
        spec=_spec_of(row.spec, row.client_id or ""),
        created_time=row.created_time,
        phase_time=from_micros(view["phase_time"]),
        updated_time=row.updated_time,
        status=Status(row.status),
        phase=Phase(row.phase),
        submit_until=row.submit_until,
        waiting=view.get("waiting", ""),
        sealed=view.get("sealed", False),
        attempt=row.attempt,
        stop_reason=Reason(view.get("stop_reason", "")),
        queued_time=_time_of(view.get("queued")),
        started_time=_time_of(view.get("started")),
        finished_time=_time_of(view.get("finished")),
        reason=Reason(view.get("reason", "")),
        status_reason=view.get("status_reason", ""),
        failure=Failure(*view["failure"]) if "failure" in view else None,
        exit_code=view.get("exit_code"),
        timed_out=view.get("timed_out", False),
        artifacts_ready=view.get("artifacts_ready", False),
        placement=_placement_of(view.get("placement")),
        hold=_hold_of(view["hold"]),
        cost=Cost(*view["cost"]),
        counts=view["counts"],
        activities=row.activities,
        facts=row.facts,
        version=row.version,
    )


def attempt_values(attempt: Attempt) -> Values:
    """All columns of an attempt's row, in the table's order."""
    return {
        "workspace_id": attempt.workspace_id,
        "job_id": attempt.job_id,
        "attempt": attempt.number,
        "state": attempt.state.value,
        "is_open": attempt.state.open,
        "lease_id": attempt.lease_id,
        "session_epoch": attempt.session_epoch,
        "assigned_time": attempt.assigned_time,
        "claimed_time": attempt.claimed_time,
        "started_time": attempt.started_time,
        "exited_time": attempt.exited_time,
        "finished_time": attempt.finished_time,
        "view": {
            "placement": _placement(attempt.placement),
            "exit": _exit(attempt.exit),
            "reason": attempt.reason,
            "phases": attempt.phases,
        },
    }


def attempt_of(row: Any) -> Attempt:
    """The attempt in a row of `attempts`."""
    placement = _placement_of(row.view["placement"])
    if placement is None:
        raise ValueError(f"attempt {row.attempt} of {row.job_id} has no placement")
    exit = row.view["exit"]
    return Attempt(
        workspace_id=row.workspace_id,
        job_id=row.job_id,
        number=row.attempt,
        lease_id=row.lease_id,
        session_epoch=row.session_epoch,
        placement=placement,
        assigned_time=row.assigned_time,
        state=AttemptState(row.state),
        claimed_time=row.claimed_time,
        started_time=row.started_time,
        exited_time=row.exited_time,
        finished_time=row.finished_time,
        exit=Exit(*exit) if exit is not None else None,
        reason=row.view["reason"],
        phases=tuple(row.view["phases"]),
    )


def activity_values(job: Job, activity: Activity) -> Values:
    """All columns of an activity's row, in the table's order."""
    return {
        "workspace_id": job.workspace_id,
        "job_id": job.job_id,
        "position": activity.position,
        "name": activity.name,
        "ordinal": activity.ordinal,
        "phase": activity.phase.value,
        "title": activity.title,
        "message": activity.message,
        "source": activity.source,
        "level": activity.level,
        "attempt": activity.attempt,
        "time": activity.time,
    }


def activity_of(row: Any) -> Activity:
    """The activity in a row of `activities`."""
    return Activity(
        position=row.position,
        name=row.name,
        ordinal=row.ordinal,
        phase=Phase(row.phase),
        title=row.title,
        message=row.message,
        source=row.source,
        level=row.level,
        time=row.time,
        attempt=row.attempt,
    )


def _view(job: Job) -> Values:
    hold, failure = job.hold, job.failure
    view: Values = {
        "phase_time": to_micros(job.phase_time),
        "waiting": job.waiting,
        "sealed": job.sealed,
        "stop_reason": job.stop_reason.value,
        "queued": _time(job.queued_time),
        "started": _time(job.started_time),
        "finished": _time(job.finished_time),
        "reason": job.reason.value,
        "status_reason": job.status_reason,
        "failure": (failure.code, failure.summary, failure.stage) if failure else None,
        "exit_code": job.exit_code,
        "timed_out": job.timed_out,
        "artifacts_ready": job.artifacts_ready,
        "placement": _placement(job.placement) if job.placement else None,
    }
    # What is not there is not written: rows are read and written whole several times per job.
    view = {key: value for key, value in view.items() if value not in (None, "", False)}
    view["hold"] = (hold.ceiling, hold.hourly, hold.amount, hold.reservation_id, hold.relaxed)
    view["cost"] = (job.cost.total, job.cost.billed_micros, job.cost.hourly)
    view["counts"] = dict(job.counts)
    if job.exit_code == 0:
        view["exit_code"] = 0
    return view


def _time(time: datetime | None) -> int | None:
    return None if time is None else to_micros(time)


def _time_of(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _hold_of(found: list[Any]) -> Hold:
    ceiling, hourly, amount, reservation_id, relaxed = found
    return Hold(ceiling, hourly, amount, reservation_id, tuple(relaxed))


def _placement(placement: Placement) -> Values:
    gpu = placement.gpu
    return {
        "node_id": placement.node_id,
        "region": placement.region,
        "provider": placement.provider,
        "price": placement.price,
        "gpu": (gpu.vendor, gpu.name, gpu.count, gpu.memory_bytes, gpu.simulated) if gpu else None,
        "simulated": placement.simulated,
        "runtime": placement.runtime,
    }


def _placement_of(found: Mapping[str, Any] | None) -> Placement | None:
    if found is None:
        return None
    gpu = Gpu(*found["gpu"]) if found["gpu"] is not None else None
    return Placement(
        found["node_id"],
        found["region"],
        found["provider"],
        found["price"],
        gpu,
        found["simulated"],
        found["runtime"],
    )


def _exit(exit: Exit | None) -> tuple[Any, ...] | None:
    if exit is None:
        return None
    return (exit.code, exit.signal, exit.timed_out, exit.out_of_memory, exit.stopped, exit.reason)


_SPEC_PLAIN = (
    "name",
    "image",
    "workload_type",
    "command",
    "timeout_seconds",
    "tasks",
    "budget_micros",
    "metadata",
    "notes",
    "group_id",
    "group_index",
    "origin",
    "external_id",
)
_SPEC_LISTS = ("args", "expected_artifacts")
_CONSTRAINTS = (
    "region",
    "region_strict",
    "pool",
    "price_micros_per_hour_max",
    "preferred_gpu_family",
    "avoid_gpu_families",
    "optimize_for",
    "priority",
    "latency_priority",
    "cost_priority",
)


def _spec(spec: Spec) -> Values:
    values: Values = {name: getattr(spec, name) for name in (*_SPEC_PLAIN, *_SPEC_LISTS)}
    values["constraints"] = {name: getattr(spec.constraints, name) for name in _CONSTRAINTS}
    values["resources"] = _resources(spec.resources)
    values["inputs"] = [(item.input_id, item.mount_path, item.size_bytes) for item in spec.inputs]
    values["labels"] = spec.labels
    callback = spec.callback
    values["callback"] = (callback.url, callback.metadata) if callback is not None else None
    return values


def _resources(resources: Resources) -> list[Any]:
    gpu = resources.gpu
    need = None
    if gpu is not None:
        need = (gpu.count, gpu.memory_bytes_min, gpu.gpu_type, gpu.gpu_class, gpu.vendor)
    return [resources.cpu_millis, resources.memory_bytes, resources.disk_bytes, need]


def _spec_of(found: Mapping[str, Any], client_id: str) -> Spec:
    cpu, memory, disk, gpu = found["resources"]
    wishes = dict(found["constraints"])
    wishes["avoid_gpu_families"] = tuple(wishes["avoid_gpu_families"])
    callback = found["callback"]
    plain: dict[str, Any] = {name: found[name] for name in _SPEC_PLAIN}
    plain |= {name: tuple(found[name]) for name in _SPEC_LISTS}
    return Spec(
        **plain,
        client_id=client_id,
        resources=Resources(cpu, memory, disk, GpuNeed(*gpu) if gpu is not None else None),
        constraints=Constraints(**wishes),
        inputs=tuple(InputFile(*item) for item in found["inputs"]),
        labels=tuple((key, value) for key, value in found["labels"]),
        callback=Callback(callback[0], tuple((k, v) for k, v in callback[1])) if callback else None,
    )
