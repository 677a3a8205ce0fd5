"""Servicers: convert, call, convert."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from junglegrid.common.v1 import event_pb2
from junglegrid.jobs.v1 import job_estimate_pb2 as estimate_pb
from junglegrid.jobs.v1 import job_internal_service_pb2 as internal_pb
from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as internal_grpc
from junglegrid.jobs.v1 import job_service_pb2 as pb
from junglegrid.jobs.v1 import job_service_pb2_grpc as public_grpc

from libs.errors import InvalidRequest
from libs.rpc import validate
from libs.rpc.context import tenant
from libs.tenancy import Tenant
from services.jobs.convert import drafts, estimates, runtimes, views
from services.jobs.convert.shapes import PHASE, STATUS, time_of
from services.jobs.service import JobsService

Republish = Callable[[datetime], Awaitable[int]]


class JobService(public_grpc.JobServiceServicer):
    """Jobs for people."""

    def __init__(self, service: JobsService, hash_key: bytes) -> None:
        self._service = service
        self._hash_key = hash_key

    async def EstimateJob(
        self, request: pb.EstimateJobRequest, context: Any
    ) -> estimate_pb.EstimateJobResponse:
        broken = tuple(
            (each["field"].removeprefix("draft."), each["message"])
            for each in validate.violations(request)
        )
        found = await self._service.estimate_job(tenant(), drafts.draft(request.draft), broken)
        return estimates.estimate(found.inspection, found.screening, found.quote, found.run_time)

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        found = await self._service.submit_job(
            tenant(),
            drafts.draft(request.draft),
            idempotency_key=request.idempotency_key,
            request_hash=drafts.request_hash(request.draft, self._hash_key),
        )
        return views.submitted(found)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        page = await self._service.read.list_jobs(
            tenant(),
            limit=request.limit if request.HasField("limit") else None,
            cursor=request.cursor,
            status=drafts.status_filter(request.status),
        )
        return pb.ListJobsResponse(
            jobs=[views.job_view(each) for each in page.jobs],
            limit=page.limit,
            next_cursor=page.next_cursor,
            has_more=page.next_cursor is not None,
        )

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        found = await self._service.read.get_job(tenant(), request.job_id)
        return pb.GetJobResponse(job=views.job_view(found))

    async def GetJobRuntime(
        self, request: pb.GetJobRuntimeRequest, context: Any
    ) -> pb.GetJobRuntimeResponse:
        found = await self._service.read.get_job_runtime(tenant(), request.job_id)
        return pb.GetJobRuntimeResponse(runtime=runtimes.runtime(found))

    async def ListJobEvents(
        self, request: pb.ListJobEventsRequest, context: Any
    ) -> pb.ListJobEventsResponse:
        found = await self._service.read.list_job_events(tenant(), request.job_id)
        job = found.job
        reply = pb.ListJobEventsResponse(
            job_id=job.job_id,
            status=STATUS[job.status],
            phase=PHASE[job.phase],
            items=[views.activity(job, each) for each in found.items],
        )
        reply.generated_at.FromDatetime(found.now)
        return reply

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        job = await self._service.cancel_job(tenant(), request.job_id, request.reason)
        return pb.CancelJobResponse(
            job_id=job.job_id, status=STATUS[job.status], status_reason=job.status_reason
        )


class JobInternalService(internal_grpc.JobInternalServiceServicer):
    """Jobs for the other services."""

    def __init__(self, service: JobsService, republish: Republish) -> None:
        self._service = service
        self._republish = republish

    async def GetJobRef(
        self, request: internal_pb.GetJobRefRequest, context: Any
    ) -> internal_pb.GetJobRefResponse:
        job = await self._service.read.get_ref(Tenant(request.workspace_id), request.job_id)
        return internal_pb.GetJobRefResponse(
            job_id=job.job_id,
            workspace_id=job.workspace_id,
            status=STATUS[job.status],
            attempt=job.attempt,
            phase=PHASE[job.phase],
        )

    async def GetLaunchSpec(
        self, request: internal_pb.GetLaunchSpecRequest, context: Any
    ) -> internal_pb.GetLaunchSpecResponse:
        found = await self._service.get_launch_spec(
            request.job_id, request.attempt, request.lease_id, request.task_index
        )
        return runtimes.launch(found)

    async def GetCallback(
        self, request: internal_pb.GetCallbackRequest, context: Any
    ) -> internal_pb.GetCallbackResponse:
        return runtimes.callback(await self._service.get_callback(request.job_id))

    async def RepublishJobs(
        self, request: internal_pb.RepublishJobsRequest, context: Any
    ) -> internal_pb.RepublishJobsResponse:
        if not request.range.HasField("since_time"):
            raise InvalidRequest("range.since_time says from when; it is missing")
        records = await self._republish(time_of(request.range.since_time))
        return internal_pb.RepublishJobsResponse(
            result=event_pb2.RepublishResponse(records=records)
        )
