"""The servicers: requests in, replies out, tenants apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from junglegrid.common.v1 import event_pb2
from junglegrid.jobs.v1 import job_draft_pb2 as draft_pb
from junglegrid.jobs.v1 import job_internal_service_pb2 as internal_pb
from junglegrid.jobs.v1 import job_pb2
from junglegrid.jobs.v1 import job_service_pb2 as pb
from junglegrid.nodes.v1 import lease_pb2
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb

from libs.db.drift import schema_drift
from libs.errors import GridError, InvalidRequest, NotFound, Unavailable
from libs.rpc.context import acting
from libs.rpc.principal import Principal
from services.jobs import tables
from services.jobs.config import JobsConfig
from services.jobs.domain.shown import LogTails
from services.jobs.errors import CursorInvalid, JobNotFound, RuntimeNotAvailable
from services.jobs.rpc import JobInternalService, JobService
from tests.unit.jobs.world import NOTHING_FITS, OTHER, WORKSPACE, World, ended, lease, lost

CALLER = Principal(kind="user", subject="key_1", workspace_id=WORKSPACE.workspace_id)
STRANGER = Principal(kind="user", subject="key_2", workspace_id=OTHER.workspace_id)


@dataclass
class Doors:
    """Both servicers over one world, called as CALLER unless said otherwise."""

    world: World
    public: JobService
    internal: JobInternalService
    since: list[datetime]

    async def call(self, name: str, request: Any, caller: Principal = CALLER) -> Any:
        with acting(caller):
            return await getattr(self.public, name)(request, None)

    async def ask(self, name: str, request: Any) -> Any:
        return await getattr(self.internal, name)(request, None)

    async def submit(self, caller: Principal = CALLER, **fields: Any) -> str:
        request = pb.SubmitJobRequest(draft=draft(**fields))
        reply = await self.call("SubmitJob", request, caller)
        job_id: str = reply.job_id
        return job_id

    async def view(self, job_id: str, caller: Principal = CALLER) -> Any:
        return (await self.call("GetJob", pb.GetJobRequest(job_id=job_id), caller)).job


@pytest.fixture
def doors(world: World) -> Doors:
    since: list[datetime] = []

    async def republish(time: datetime) -> int:
        since.append(time)
        return 7

    public = JobService(world.service, b"h" * 32)
    return Doors(world, public, JobInternalService(world.service, republish), since)


def draft(**fields: Any) -> draft_pb.JobDraft:
    given: dict[str, Any] = {
        "name": "demo",
        "image": "python:3.11",
        "workload_type": "batch",
        "model_size_gb": 1.0,
        "command": ["python", "-c", "print(42)"],
    }
    return draft_pb.JobDraft(**(given | fields))


async def test_submit_answers_what_the_202_says(doors: Doors) -> None:
    request = pb.SubmitJobRequest(
        draft=draft(expected_artifacts=["transcript.txt"], id="mine"), idempotency_key="k"
    )
    reply = await doors.call("SubmitJob", request)
    assert reply.status == job_pb2.JOB_STATUS_QUEUED
    assert reply.execution_route == reply.effective_route == "standard_managed"
    assert reply.client_id == "mine"
    assert reply.queued_at.ToDatetime(UTC) == doors.world.clock.now()
    (artifact,) = reply.artifact_contract.expected_artifacts
    assert artifact.path == "/workspace/artifacts/transcript.txt"
    assert (artifact.filename, artifact.required) == ("transcript.txt", True)
    again = await doors.call("SubmitJob", request)
    assert again.SerializeToString(deterministic=True) == reply.SerializeToString(
        deterministic=True
    )
    request.draft.environment["A"] = "other"
    with pytest.raises(GridError) as refused:
        await doors.call("SubmitJob", request)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_every_read_answers_right_after_the_202(doors: Doors) -> None:
    """Nothing has been heard from any node, and nothing will be."""
    job_id = await doors.submit()
    view = await doors.view(job_id)
    assert (view.status, view.phase) == (job_pb2.JOB_STATUS_QUEUED, job_pb2.JOB_PHASE_QUEUED)
    assert not view.HasField("started_at")
    assert not view.HasField("exit_code")
    assert not view.HasField("failure")
    page = await doors.call("ListJobs", pb.ListJobsRequest())
    assert [each.job_id for each in page.jobs] == [job_id]
    events = await doors.call("ListJobEvents", pb.ListJobEventsRequest(job_id=job_id))
    assert [(each.id, each.sequence) for each in events.items] == [
        (f"{job_id}:submitted", 10), (f"{job_id}:queued", 20),
    ]  # fmt: skip
    assert events.items[1].type == "job.queued"
    with pytest.raises(RuntimeNotAvailable) as early:
        await doors.call("GetJobRuntime", pb.GetJobRuntimeRequest(job_id=job_id))
    assert early.value.message == "job runtime not available yet"
    ref = await doors.ask(
        "GetJobRef", internal_pb.GetJobRefRequest(job_id=job_id, workspace_id="ws_1")
    )
    assert (ref.status, ref.attempt) == (job_pb2.JOB_STATUS_QUEUED, 1)


async def test_a_late_start_says_why(doors: Doors) -> None:
    job_id = await doors.submit()
    assert not (await doors.view(job_id)).delayed_start
    doors.world.quotes.reason = "All nodes that fit are busy."
    await doors.world.pass_time(doors.world.config.delayed_start_seconds + 1)
    view = await doors.view(job_id)
    assert view.delayed_start
    assert (view.delay_reason.code, view.delay_reason.message) == (
        "waiting_for_capacity", "All nodes that fit are busy.",
    )  # fmt: skip
    doors.world.quotes.error = Unavailable("away")
    assert (await doors.view(job_id)).delay_reason.message == "No node can take the job now."


async def test_a_finished_job_shows_all_of_it(doors: Doors) -> None:
    metadata = Struct()
    metadata.update({"client_request_id": "abc", "n": 3})
    job_id = await doors.submit(metadata=metadata, id="mine")
    await doors.world.pass_time(3)
    await doors.world.open(job_id)
    await doors.world.claim(job_id)
    await doors.world.start(job_id)
    await doors.world.pass_time(2)
    await doors.world.exit(job_id, 0)
    await doors.world.close(job_id, ended(job_id))
    await doors.world.settle(job_id, 1_250_000)
    view = await doors.view(job_id)
    assert (view.wait_duration_seconds, view.duration_ms) == (3, 2000)
    assert (view.exit_code, view.artifacts_ready, view.retry_count) == (0, True, 0)
    assert (view.cost_usd, view.billing.final_cost_usd) == (1_250_000, 1_250_000)
    assert (view.provider, view.selected_region) == ("acme", "us-east")
    assert (view.gpu.name, view.gpu.count) == ("NVIDIA L4", 1)
    assert (view.runtime, view.scheduling.node_id) == ("sandbox", "node_1")
    assert MessageToDict(view.metadata) == {"client_request_id": "abc", "n": 3.0}
    assert [each.state for each in view.attempts] == ["succeeded"]
    request = pb.GetJobRuntimeRequest(job_id=job_id)
    runtime = (await doors.call("GetJobRuntime", request)).runtime
    assert (runtime.exit_code, runtime.stdout_tail, runtime.stderr_tail) == (0, "out", "err")
    assert runtime.execution_mode == "batch_command"
    assert runtime.runtime_availability.stdout_tail.state == "available"
    assert runtime.startup_diagnostics.command_spawned
    assert not runtime.startup_diagnostics.HasField("inputs_prepared")


async def test_a_job_that_no_node_had_costs_nothing(doors: Doors) -> None:
    job_id = await doors.submit()
    assert not (await doors.view(job_id)).HasField("cost_usd")
    await doors.call("CancelJob", pb.CancelJobRequest(job_id=job_id))
    view = await doors.view(job_id)
    assert view.billing.HasField("final_cost_usd")
    assert (view.cost_usd, view.billing.final_cost_usd) == (0, 0)


async def test_a_failed_job_shows_its_last_lines(doors: Doors) -> None:
    job_id = await doors.submit()
    await doors.world.run(job_id, code=3)
    view = await doors.view(job_id)
    assert (view.failure.code, view.failure.stage) == ("EXIT_CODE", "running")
    assert view.failure.log_excerpt == "err"
    doors.world.tails.error = Unavailable("away")
    assert (await doors.view(job_id)).failure.log_excerpt == ""
    request = pb.GetJobRuntimeRequest(job_id=job_id)
    runtime = (await doors.call("GetJobRuntime", request)).runtime
    assert runtime.exit_code == 3
    assert runtime.runtime_availability.stdout_tail.state == "delayed"


@pytest.mark.parametrize(
    ("tails", "state"),
    [
        (LogTails("o", "e", gap=True, complete=True), "partial_loss"),
        (LogTails("o", "e", stdout_truncated=True, complete=True), "truncated"),
        (LogTails("o", "e"), "delayed"),
    ],
)
async def test_tails_say_what_they_lack(doors: Doors, tails: LogTails, state: str) -> None:
    job_id = await doors.submit()
    await doors.world.run(job_id)
    doors.world.tails.answer = tails
    request = pb.GetJobRuntimeRequest(job_id=job_id)
    runtime = (await doors.call("GetJobRuntime", request)).runtime
    assert runtime.runtime_availability.stdout_tail.state == state
    assert runtime.runtime_availability.stdout_tail.reason


async def test_a_job_that_never_started_has_a_runtime_in_the_end(doors: Doors) -> None:
    job_id = await doors.submit()
    await doors.world.open(job_id)
    await doors.world.close(job_id, lost(job_id, 1, lease_pb2.LEASE_OUTCOME_IMAGE_UNAVAILABLE))
    request = pb.GetJobRuntimeRequest(job_id=job_id)
    runtime = (await doors.call("GetJobRuntime", request)).runtime
    assert not runtime.startup_diagnostics.command_spawned
    assert not runtime.HasField("exit_code")
    assert runtime.runtime_availability.exit_code.state == "unsupported"
    assert runtime.diagnostics
    assert doors.world.tails.calls == 0


async def test_nobody_sees_another_workspace_s_job(doors: Doors) -> None:
    job_id = await doors.submit()
    for name, request in (
        ("GetJob", pb.GetJobRequest(job_id=job_id)),
        ("GetJobRuntime", pb.GetJobRuntimeRequest(job_id=job_id)),
        ("ListJobEvents", pb.ListJobEventsRequest(job_id=job_id)),
        ("CancelJob", pb.CancelJobRequest(job_id=job_id)),
    ):
        with pytest.raises(JobNotFound):
            await doors.call(name, request, STRANGER)
    assert not (await doors.call("ListJobs", pb.ListJobsRequest(), STRANGER)).jobs
    with pytest.raises(NotFound):
        await doors.ask(
            "GetJobRef", internal_pb.GetJobRefRequest(job_id=job_id, workspace_id="ws_2")
        )
    # Nor can a record of another workspace move it.
    await doors.world.hear(nodes_pb.LeaseOpened(lease=lease(job_id)), job_id, OTHER)
    assert (await doors.view(job_id)).status == job_pb2.JOB_STATUS_QUEUED


async def test_pages_are_newest_first_and_never_skip(doors: Doors) -> None:
    made = [await doors.submit() for _ in range(7)]
    await doors.world.pass_time(1)
    made += [await doors.submit() for _ in range(2)]
    found: list[str] = []
    cursor = "0"
    while True:
        page = await doors.call("ListJobs", pb.ListJobsRequest(limit=2, cursor=cursor))
        found += [each.job_id for each in page.jobs]
        assert page.has_more == page.HasField("next_cursor")
        if not page.has_more:
            break
        cursor = page.next_cursor
        await doors.submit()  # what is new does not move the pages behind
    assert found == made[::-1]


async def test_lists_are_filtered_by_status(doors: Doors) -> None:
    first, second = await doors.submit(), await doors.submit()
    await doors.call("CancelJob", pb.CancelJobRequest(job_id=first, reason="no"))
    for word, wanted in (("cancelled", first), ("canceled", first), ("queued", second)):
        page = await doors.call("ListJobs", pb.ListJobsRequest(status=word))
        assert [each.job_id for each in page.jobs] == [wanted]


async def test_cursors_cannot_be_made_up_or_carried_over(doors: Doors) -> None:
    for _ in range(3):
        await doors.submit()
    page = await doors.call("ListJobs", pb.ListJobsRequest(limit=1))
    cursor = page.next_cursor
    for bad in (cursor[:-2] + "AA", "1", "x" * 400, "é"):
        with pytest.raises(CursorInvalid):
            await doors.call("ListJobs", pb.ListJobsRequest(cursor=bad))
    with pytest.raises(CursorInvalid):
        await doors.call("ListJobs", pb.ListJobsRequest(cursor=cursor), STRANGER)
    with pytest.raises(CursorInvalid):
        await doors.call("ListJobs", pb.ListJobsRequest(cursor=cursor, status="queued"))


async def test_estimate_of_a_good_draft(doors: Doors) -> None:
    reply = await doors.call("EstimateJob", pb.EstimateJobRequest(draft=draft()))
    assert reply.available
    assert reply.screening.can_submit
    assert reply.classification.acceleration_requirement == "gpu_required"
    assert (reply.routing.route_status, reply.capacity.estimate_source) == (
        "available", "live_capacity",
    )  # fmt: skip
    assert reply.capacity_status.availability == "available"
    assert reply.likely_gpu_type == "NVIDIA L4"
    assert 0 < reply.estimated_cost_min_usd <= reply.estimated_cost_usd
    assert reply.estimated_cost_usd <= reply.estimated_cost_max_usd
    assert reply.required_vram_gb == 1.7
    assert (await doors.world.rows())["jobs"] == 0


async def test_estimate_reports_instead_of_refusing(doors: Doors) -> None:
    doors.world.quotes.answer = NOTHING_FITS
    doors.world.inputs.error = NotFound("input 'inp_1' was not found", reason="JOB_INPUT_NOT_FOUND")
    bad = draft(precision="fp8", workload_type="mining", image="")
    bad.input_files.add(input_id="inp_1")
    reply = await doors.call("EstimateJob", pb.EstimateJobRequest(draft=bad))
    assert not reply.available
    assert (reply.screening.status, reply.screening.can_submit) == ("blocked", False)
    found = {check.code for check in reply.screening.checks}
    assert {"FIELD_RULE", "REQUIRED", "JOB_INPUT_NOT_FOUND"} <= found
    assert {check.field for check in reply.screening.checks} >= {"precision", "workload_type"}
    assert reply.screening.fixes
    assert (reply.unavailable_code, reply.routing.route_status) == (
        "NO_NODES_ONLINE", "unavailable",
    )  # fmt: skip
    assert reply.explanation.startswith("No node that is online fits.")


async def test_callback_facts_are_given_once_final(doors: Doors) -> None:
    job_id = await doors.submit(
        callback_url="https://a.example/x",
        callback_auth_token="canary-token",
        callback_metadata={"request_id": "r"},
    )
    request = internal_pb.GetCallbackRequest(job_id=job_id)
    with pytest.raises(JobNotFound):
        await doors.ask("GetCallback", request)
    await doors.world.run(job_id)
    reply = await doors.ask("GetCallback", request)
    assert (reply.url, reply.auth_token) == ("https://a.example/x", "canary-token")
    assert dict(reply.metadata) == {"request_id": "r"}
    assert (reply.status, reply.exit_code) == (job_pb2.JOB_STATUS_COMPLETED, 0)
    assert (reply.provider_name, reply.assigned_node_id) == ("acme", "node_1")
    assert reply.HasField("started_time")


async def test_launch_carries_the_job(doors: Doors) -> None:
    job_id = await doors.submit(environment={"A": "b"}, timeout_seconds=9)
    request = internal_pb.GetLaunchSpecRequest(job_id=job_id, attempt=1, lease_id="lease_1")
    launch = (await doors.ask("GetLaunchSpec", request)).launch
    assert (launch.workspace_id, launch.command, launch.timeout_seconds) == ("ws_1", "python", 9)
    assert launch.environment["A"] == "b"
    assert launch.resources.gpu.count == 1
    assert launch.log_bytes_max > 0


async def test_republish_needs_a_time(doors: Doors) -> None:
    with pytest.raises(InvalidRequest):
        await doors.ask("RepublishJobs", internal_pb.RepublishJobsRequest())
    since = event_pb2.RepublishRequest()
    since.since_time.FromDatetime(doors.world.clock.now())
    reply = await doors.ask("RepublishJobs", internal_pb.RepublishJobsRequest(range=since))
    assert reply.result.records == 7
    assert doors.since == [doors.world.clock.now()]


async def test_migrations_make_the_tables(world: World) -> None:
    assert await world.database.read(lambda tx: schema_drift(tx, tables.metadata)) == []


def test_the_sweep_is_slow() -> None:
    with pytest.raises(ValueError, match="at least 5"):
        JobsConfig(sweep_seconds=1)
