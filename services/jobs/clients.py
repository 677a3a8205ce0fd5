"""Other services, as jobs asks them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from junglegrid.artifacts.v1 import artifact_internal_service_pb2 as artifacts_pb
from junglegrid.artifacts.v1 import artifact_internal_service_pb2_grpc as artifacts_grpc
from junglegrid.billing.v1 import billing_internal_service_pb2 as billing_pb
from junglegrid.billing.v1 import billing_internal_service_pb2_grpc as billing_grpc
from junglegrid.billing.v1 import billing_service_pb2 as money_pb
from junglegrid.logs.v1 import log_internal_service_pb2 as logs_pb
from junglegrid.logs.v1 import log_internal_service_pb2_grpc as logs_grpc
from junglegrid.scheduling.v1 import scheduling_service_pb2 as scheduling_pb
from junglegrid.scheduling.v1 import scheduling_service_pb2_grpc as scheduling_grpc

from libs.tenancy import Tenant
from services.jobs.convert import estimates, shapes
from services.jobs.domain.launch import Mount
from services.jobs.domain.quote import Quote
from services.jobs.domain.shown import LogTails
from services.jobs.domain.spec import InputFile, Spec
from services.jobs.errors import HoldGone
from services.jobs.service.ports import Reserved


class SchedulingClient:
    """Quotes over the stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = scheduling_grpc.SchedulingInternalServiceStub(channel)

    async def quote(self, tenant: Tenant, spec: Spec) -> Quote:
        """Where work of this shape would run."""
        reply = await self._stub.Quote(
            scheduling_pb.QuoteRequest(
                workspace_id=tenant.workspace_id,
                resources=shapes.resources(spec.resources),
                constraints=shapes.constraints(spec.constraints),
                tasks=spec.tasks,
            )
        )
        return estimates.quote(reply)

    async def explain(self, tenant: Tenant, job_id: str) -> str:
        """Why a queued job is not placed."""
        request = scheduling_pb.ExplainQueueEntryRequest(
            workspace_id=tenant.workspace_id, job_id=job_id
        )
        reply = await self._stub.ExplainQueueEntry(request)
        return str(reply.message) if reply.queued else ""


class BillingClient:
    """Holds over the stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = billing_grpc.BillingInternalServiceStub(channel)

    async def reserve(
        self, tenant: Tenant, job_id: str, amount_micros: int, price_micros_per_hour: int
    ) -> Reserved:
        """Holds credit for attempt 1 of a job."""
        reply = await self._stub.Reserve(
            billing_pb.ReserveRequest(
                workspace_id=tenant.workspace_id,
                job_id=job_id,
                attempt=1,
                amount_micros=amount_micros,
                price_micros_per_hour=price_micros_per_hour,
            )
        )
        if reply.status != money_pb.RESERVATION_STATUS_HELD:
            raise HoldGone()
        return Reserved(reply.reservation_id, reply.amount_micros)

    async def release(self, tenant: Tenant, job_id: str) -> None:
        """Gives back what was never used."""
        await self._stub.Release(
            billing_pb.ReleaseRequest(workspace_id=tenant.workspace_id, job_id=job_id)
        )


class ArtifactsClient:
    """Inputs over the stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = artifacts_grpc.ArtifactInternalServiceStub(channel)

    async def resolve(
        self, tenant: Tenant, input_ids: Sequence[str], script_ids: Sequence[str]
    ) -> tuple[InputFile, ...]:
        """The inputs as they will be mounted."""
        reply = await self._stub.ResolveInputs(
            artifacts_pb.ResolveInputsRequest(
                workspace_id=tenant.workspace_id, input_ids=input_ids, script_ids=script_ids
            )
        )
        return tuple(
            InputFile(found.input_id, found.mount_path, found.size_bytes) for found in reply.inputs
        )

    async def grant(self, tenant: Tenant, input_ids: Sequence[str]) -> tuple[Mount, ...]:
        """Signed downloads for a node."""
        reply = await self._stub.GrantInputs(
            artifacts_pb.GrantInputsRequest(workspace_id=tenant.workspace_id, input_ids=input_ids)
        )
        return tuple(
            Mount(found.input_id, found.mount_path, found.url, found.size_bytes, found.sha256)
            for found in reply.mounts
        )


class LogsClient:
    """Tails over the stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = logs_grpc.LogInternalServiceStub(channel)

    async def tails(self, tenant: Tenant, job_id: str, lines: int, bytes: int) -> LogTails:
        """The last lines of a job's output."""
        reply = await self._stub.GetLogTails(
            logs_pb.GetLogTailsRequest(
                workspace_id=tenant.workspace_id, job_id=job_id, lines=lines, bytes=bytes
            )
        )
        return LogTails(
            stdout=reply.stdout_tail,
            stderr=reply.stderr_tail,
            stdout_truncated=reply.stdout_truncated,
            stderr_truncated=reply.stderr_truncated,
            gap=reply.gap,
            complete=reply.complete,
        )
