"""Identity's messages and nouns."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.api.v1 import route_pb2
from junglegrid.artifacts.v1 import artifact_service_pb2, input_service_pb2
from junglegrid.billing.v1 import billing_service_pb2
from junglegrid.identity.v1 import identity_internal_service_pb2 as pb
from junglegrid.jobs.v1 import job_service_pb2
from junglegrid.logs.v1 import log_service_pb2

from services.identity.domain import ApiKey, ApiKeyState, Revocations

# Every file with public routes; a test compares it with the contracts.
PUBLIC_FILES = (
    job_service_pb2,
    log_service_pb2,
    artifact_service_pb2,
    input_service_pb2,
    billing_service_pb2,
)
# In the public contract, for routes that are still to come.
RESERVED_SCOPES = frozenset({"registry:read", "registry:write"})
_STATES = {
    ApiKeyState.ACTIVE: pb.API_KEY_STATE_ACTIVE,
    ApiKeyState.REVOKED: pb.API_KEY_STATE_REVOKED,
}


def known_scopes() -> frozenset[str]:
    """Every scope that some route asks for."""
    found = set(RESERVED_SCOPES)
    for file in PUBLIC_FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found.update(method.GetOptions().Extensions[route_pb2.route].scopes)
    return frozenset(found)


def to_resolved(key: ApiKey) -> pb.ResolveKeyResponse:
    """Who a key is."""
    return pb.ResolveKeyResponse(
        key_id=key.key_id,
        workspace_id=key.workspace_id,
        account_id=key.account_id,
        scopes=key.scopes,
        expire_time=_time(key.expire_time),
    )


def to_view(key: ApiKey) -> pb.ApiKeyView:
    """A key without its secret."""
    return pb.ApiKeyView(
        key_id=key.key_id,
        name=key.name,
        prefix=key.prefix,
        scopes=key.scopes,
        state=_STATES[key.state],
        create_time=_time(key.create_time),
        expire_time=_time(key.expire_time),
    )


def to_revocations(found: Revocations) -> pb.WatchRevocationsResponse:
    """Revocations, or a beat."""
    return pb.WatchRevocationsResponse(key_ids=found.key_ids, position=found.position)


def expire_time(request: pb.CreateApiKeyRequest) -> datetime | None:
    """The end that was asked for; None for none."""
    if not request.HasField("expire_time"):
        return None
    return request.expire_time.ToDatetime(tzinfo=UTC)


def _time(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
