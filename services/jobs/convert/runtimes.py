"""Runtime, launch and callback replies."""

from __future__ import annotations

from junglegrid.jobs.v1 import job_internal_service_pb2 as internal_pb
from junglegrid.jobs.v1 import job_runtime_pb2 as pb
from junglegrid.jobs.v1 import launch_pb2

from services.jobs.convert.shapes import STATUS, resources, set_time
from services.jobs.domain.job import Attempt, Job
from services.jobs.domain.launch import CallbackFacts, Launch
from services.jobs.domain.shown import LogTails, Runtime
from services.jobs.domain.spec import Spec
from services.jobs.domain.states import AttemptState

MODE = "batch_command"
_LOGS_AWAY = "The logs service does not answer now; ask again."
_PREPARED = frozenset({"workload_execution", "running", "cleanup"})


def runtime(found: Runtime) -> pb.JobRuntime:
    """Exit, times, tails, and what is known of each."""
    job, tails = found.job, found.tails
    attempt = found.attempt
    spawned = job.started_time is not None
    exit = attempt.exit if attempt is not None else None
    view = pb.JobRuntime(
        job_id=job.job_id,
        status=STATUS[job.status],
        execution_mode=MODE,
        image=job.spec.image,
        command=job.spec.command,
        args=job.spec.args,
        exit_code=exit.code if exit is not None else job.exit_code,
        timed_out=exit.timed_out if exit is not None else job.timed_out,
        stdout_tail=tails.stdout if tails is not None else "",
        stderr_tail=tails.stderr if tails is not None else "",
        runtime_availability=_availability(found),
        diagnostics=_diagnostics(found),
        startup_diagnostics=_startup(job.spec, attempt, spawned=spawned),
        runtime=attempt.placement.runtime if attempt is not None else "",
        attempt=job.attempt,
        simulated=attempt.placement.simulated if attempt is not None else False,
    )
    if job.started_time is not None:
        view.started_at.FromDatetime(job.started_time)
    ended = attempt.exited_time if attempt is not None else None
    if ended is not None or job.finished_time is not None:
        set_time(view.finished_at, ended or job.finished_time)
    return view


def _availability(found: Runtime) -> pb.RuntimeAvailability:
    return pb.RuntimeAvailability(
        exit_code=_exit_known(found),
        stdout_tail=_tail_known(found, truncated=_cut(found.tails, "stdout")),
        stderr_tail=_tail_known(found, truncated=_cut(found.tails, "stderr")),
    )


def _cut(tails: LogTails | None, stream: str) -> bool:
    if tails is None:
        return False
    return tails.stdout_truncated if stream == "stdout" else tails.stderr_truncated


def _exit_known(found: Runtime) -> pb.FieldAvailability:
    job, attempt = found.job, found.attempt
    if job.exit_code is not None or (attempt is not None and attempt.exit is not None):
        return pb.FieldAvailability(state="available")
    if not job.final:
        return pb.FieldAvailability(state="delayed", reason="The command has not ended.")
    if job.started_time is None:
        return pb.FieldAvailability(state="unsupported", reason="The command was never started.")
    if attempt is not None and attempt.state.open:
        return pb.FieldAvailability(state="delayed", reason="The command is being stopped.")
    return pb.FieldAvailability(state="partial_loss", reason="The exit was not heard of.")


def _tail_known(found: Runtime, *, truncated: bool) -> pb.FieldAvailability:
    tails = found.tails
    if tails is None:
        return pb.FieldAvailability(state="delayed", reason=_LOGS_AWAY)
    if found.job.started_time is None:
        return pb.FieldAvailability(state="unsupported", reason="The command was never started.")
    if tails.gap:
        return pb.FieldAvailability(state="partial_loss", reason="Part of the log is missing.")
    if truncated:
        return pb.FieldAvailability(
            state="truncated", reason="Only the last lines; read all of them with the logs route."
        )
    if found.job.final and not tails.complete:
        return pb.FieldAvailability(state="delayed", reason="The last lines are on their way.")
    return pb.FieldAvailability(state="available")


def _diagnostics(found: Runtime) -> list[str]:
    sentences = []
    failure = found.job.failure
    if failure is not None:
        sentences.append(failure.summary)
    if found.tails is not None and found.tails.gap:
        sentences.append("Part of the log is missing.")
    if found.job.attempt > 1:
        sentences.append(f"This is attempt {found.job.attempt}; earlier ones were lost.")
    if found.attempt is not None and found.attempt.placement.simulated:
        sentences.append("The job ran on simulated hardware.")
    return sentences


def _startup(spec: Spec, attempt: Attempt | None, *, spawned: bool) -> pb.StartupDiagnostics:
    """Flags stay null while nothing is known, or when there is nothing to prepare."""
    told = spawned or (attempt is not None and not _PREPARED.isdisjoint(attempt.phases))
    ended = attempt is not None and attempt.state not in (
        AttemptState.ASSIGNED,
        AttemptState.STARTING,
    )
    known = told or ended
    inputs = any(not each.mount_path.startswith("/workspace/scripts/") for each in spec.inputs)
    return pb.StartupDiagnostics(
        command_spawned=spawned,
        workload_logs_available=spawned,
        inputs_prepared=told if inputs and known else None,
        scripts_prepared=told if spec.scripts and known else None,
    )


def launch(found: Launch) -> internal_pb.GetLaunchSpecResponse:
    """What a node runs."""
    job = found.job
    spec = job.spec
    return internal_pb.GetLaunchSpecResponse(
        launch=launch_pb2.LaunchSpec(
            workspace_id=job.workspace_id,
            image=spec.image,
            command=spec.command,
            args=spec.args,
            environment=dict(found.environment),
            resources=resources(spec.resources),
            timeout_seconds=spec.timeout_seconds,
            inputs=[
                launch_pb2.InputMount(
                    input_id=mount.input_id,
                    mount_path=mount.mount_path,
                    url=mount.url,
                    size_bytes=mount.size_bytes,
                    sha256=mount.sha256,
                )
                for mount in found.mounts
            ],
            expected_artifacts=spec.expected_artifacts,
            log_bytes_max=found.log_bytes_max,
        )
    )


def callback(found: CallbackFacts) -> internal_pb.GetCallbackResponse:
    """Target and facts of a callback."""
    job = found.job
    target, place = job.spec.callback, job.placement
    reply = internal_pb.GetCallbackResponse(
        workspace_id=job.workspace_id,
        url=target.url if target is not None else "",
        auth_token=found.token,
        metadata=dict(target.metadata) if target is not None else {},
        status=STATUS[job.status],
        status_reason=job.status_reason,
        image=job.spec.image,
        command=job.spec.command,
        args=job.spec.args,
        exit_code=job.exit_code,
        timed_out=job.timed_out,
        assigned_node_id=place.node_id if place else "",
        provider_name=place.provider if place else "",
        # Providers have no id of their own for a node of this grid.
        provider_node_id=place.node_id if place else "",
    )
    _callback_times(reply, job)
    return reply


def _callback_times(reply: internal_pb.GetCallbackResponse, job: Job) -> None:
    reply.created_time.FromDatetime(job.created_time)
    if job.queued_time is not None:
        reply.queued_time.FromDatetime(job.queued_time)
    if job.started_time is not None:
        reply.started_time.FromDatetime(job.started_time)
    if job.finished_time is not None:
        reply.finished_time.FromDatetime(job.finished_time)
