"""Proto <-> domain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.jobs.v1 import job_internal_service_pb2 as jobs_internal_pb
from junglegrid.jobs.v1 import job_pb2
from junglegrid.webhooks.v1 import webhook_internal_service_pb2 as pb

from services.webhooks.domain.delivery import Delivery, DeliveryStatus
from services.webhooks.domain.payload import CallbackFacts

_PREFIX = "JOB_STATUS_"
_STATUS: Mapping[DeliveryStatus, pb.DeliveryStatus.ValueType] = {
    status: pb.DeliveryStatus.Value(f"DELIVERY_STATUS_{status.name}") for status in DeliveryStatus
}


def job_status(found: job_pb2.JobStatus.ValueType) -> str:
    """The contract's word for a status."""
    return job_pb2.JobStatus.Name(found).removeprefix(_PREFIX).lower()


def callback_facts(job_id: str, found: jobs_internal_pb.GetCallbackResponse) -> CallbackFacts:
    """What jobs told about a final job."""
    return CallbackFacts(
        workspace_id=found.workspace_id,
        job_id=job_id,
        url=found.url,
        token=found.auth_token,
        metadata=dict(found.metadata),
        status=job_status(found.status),
        status_reason=found.status_reason,
        created_time=_time(found.created_time),
        queued_time=_time(found.queued_time) if found.HasField("queued_time") else None,
        started_time=_time(found.started_time) if found.HasField("started_time") else None,
        finished_time=_time(found.finished_time),
        image=found.image,
        command=found.command,
        args=tuple(found.args),
        exit_code=found.exit_code if found.HasField("exit_code") else None,
        timed_out=found.timed_out,
        assigned_node_id=found.assigned_node_id,
        provider_name=found.provider_name,
        provider_node_id=found.provider_node_id,
    )


def delivery_view(found: Delivery) -> pb.DeliveryView:
    """A delivery for operators; no body, no token."""
    view = pb.DeliveryView(
        delivery_id=found.delivery_id,
        status=_STATUS[found.status],
        attempts=found.attempts,
        last_status=found.last_status,
        last_error=found.last_error,
    )
    if found.due is not None:
        view.next_attempt_time.FromDatetime(found.due)
    return view


def _time(found: Timestamp) -> datetime:
    return found.ToDatetime(UTC)
