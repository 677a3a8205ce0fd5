"""Proto to domain and back, and page cursors; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.artifacts.v1 import artifact_internal_service_pb2 as internal_pb
from junglegrid.artifacts.v1 import artifact_service_pb2 as artifact_pb
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as upload_pb
from junglegrid.artifacts.v1 import input_service_pb2 as input_pb
from junglegrid.jobs.v1 import launch_pb2

from libs.rpc.token import BadToken, from_text, seal, to_text, unseal
from libs.tenancy import Tenant
from services.artifacts.domain import (
    Announcement,
    Artifact,
    ArtifactState,
    Claim,
    Input,
    InputState,
    Mount,
    Writer,
)
from services.artifacts.errors import InvalidCursor

if TYPE_CHECKING:
    from libs.objects import SignedRequest
    from libs.rpc import AttemptGrant

_INPUT_STATUS: Mapping[InputState, input_pb.InputStatus.ValueType] = {
    InputState.PENDING: input_pb.INPUT_STATUS_PENDING,
    InputState.UPLOADED: input_pb.INPUT_STATUS_UPLOADED,
    InputState.EXPIRED: input_pb.INPUT_STATUS_EXPIRED,
}
_ARTIFACT_STATUS: Mapping[ArtifactState, artifact_pb.ArtifactStatus.ValueType] = {
    ArtifactState.PENDING: artifact_pb.ARTIFACT_STATUS_PENDING,
    ArtifactState.READY: artifact_pb.ARTIFACT_STATUS_READY,
    ArtifactState.FAILED: artifact_pb.ARTIFACT_STATUS_FAILED,
}


class Cursors:
    """Cursors of input lists: where a page begins, signed for one workspace."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def to_text(self, tenant: Tenant, input_id: str) -> str:
        """The cursor of the page after `input_id`."""
        return to_text(seal(self._key, ["cursor.v1", "job-inputs", tenant.workspace_id, input_id]))

    def from_text(self, tenant: Tenant, text: str) -> str:
        """The input that the page comes after; "" for the first page, which `0` means too. Raises
        InvalidCursor."""
        if text in ("", "0"):
            return ""
        try:
            *owner, input_id = unseal(self._key, from_text(text))
        except (BadToken, ValueError):
            owner, input_id = [], ""
        if owner != ["cursor.v1", "job-inputs", tenant.workspace_id]:
            raise InvalidCursor(
                "cursor is not valid here; send next_cursor of the page before, or leave it out",
                details={"field": "cursor"},
            )
        return input_id


def claim(request: input_pb.CompleteJobInputRequest) -> Claim:
    """What complete says."""
    return Claim(
        request.token,
        request.filename,
        request.content_type,
        request.size_bytes if request.HasField("size_bytes") else None,
        request.etag,
    )


def writer(grant: AttemptGrant) -> Writer:
    """What a grant proves, once it is verified."""
    return Writer(Tenant(grant.workspace_id), grant.job_id, grant.attempt, grant.task_index)


def announcement(request: upload_pb.CreateUploadRequest) -> Announcement:
    """The file that a node has found."""
    return Announcement(request.filename, request.size_bytes, request.sha256)


def slot_to_proto(
    item: Input, token: str, request: SignedRequest, complete_url: str
) -> input_pb.CreateJobInputResponse:
    """A new slot; the only answer that has its token."""
    upload = input_pb.InputUpload(
        input_id=item.input_id,
        filename=item.filename,
        method=request.method,
        upload_url=request.url,
        headers=request.headers,
        token=token,
        expires_at=_stamp(item.slot_expire_time),
        complete_url=complete_url,
    )
    return input_pb.CreateJobInputResponse(upload=upload)


def input_to_proto(item: Input) -> input_pb.InputView:
    """An input as the public contract shows it."""
    return input_pb.InputView(
        input_id=item.input_id,
        filename=item.filename,
        content_type=item.content_type,
        kind=item.kind,
        status=_INPUT_STATUS[item.state],
        ready=item.ready,
        mount_path=item.mount_path,
        size_bytes=None if item.stored is None else item.stored.size_bytes,
        sha256="" if item.stored is None else item.stored.sha256,
        created_at=_stamp(item.create_time),
        uploaded_at=None if item.upload_time is None else _stamp(item.upload_time),
    )


def page_to_proto(items: Iterable[Input], next_cursor: str) -> input_pb.ListJobInputsResponse:
    """A page of inputs; no cursor on the last."""
    return input_pb.ListJobInputsResponse(
        inputs=[input_to_proto(item) for item in items],
        next_cursor=next_cursor or None,
        has_more=bool(next_cursor),
    )


def mounts_to_proto(mounts: Iterable[Mount]) -> internal_pb.ResolveInputsResponse:
    """Inputs as jobs keeps them."""
    return internal_pb.ResolveInputsResponse(
        inputs=[
            internal_pb.ResolvedInput(
                input_id=mount.input_id,
                mount_path=mount.mount_path,
                size_bytes=mount.stored.size_bytes,
            )
            for mount in mounts
        ]
    )


def mount_to_proto(mount: Mount, url: str) -> launch_pb2.InputMount:
    """An input as a node fetches it."""
    return launch_pb2.InputMount(
        input_id=mount.input_id,
        mount_path=mount.mount_path,
        url=url,
        size_bytes=mount.stored.size_bytes,
        sha256=mount.stored.sha256,
    )


def upload_to_proto(
    artifact: Artifact, request: SignedRequest | None
) -> upload_pb.CreateUploadResponse:
    """Where a node puts the bytes."""
    if request is None:
        return upload_pb.CreateUploadResponse(artifact_id=artifact.artifact_id, ready=True)
    return upload_pb.CreateUploadResponse(
        artifact_id=artifact.artifact_id,
        upload_url=request.url,
        headers=request.headers,
        expire_time=_stamp(request.expires_time),
    )


def artifact_to_proto(artifact: Artifact) -> artifact_pb.ArtifactView:
    """An artifact as the public contract shows it."""
    return artifact_pb.ArtifactView(
        artifact_id=artifact.artifact_id,
        job_id=artifact.job_id,
        filename=artifact.filename,
        content_type=artifact.content_type,
        size_bytes=artifact.size_bytes,
        status=_ARTIFACT_STATUS[artifact.state],
        ready=artifact.ready,
        created_at=_stamp(artifact.create_time),
        uploaded_at=None if artifact.ready_time is None else _stamp(artifact.ready_time),
        sha256=artifact.sha256 if artifact.ready else "",
        attempt=artifact.attempt,
    )


def artifacts_to_proto(artifacts: Sequence[Artifact]) -> artifact_pb.ListArtifactsResponse:
    """All of a job."""
    return artifact_pb.ListArtifactsResponse(
        artifacts=[artifact_to_proto(artifact) for artifact in artifacts]
    )


def download_to_proto(
    artifact: Artifact, url: str, expire_time: datetime
) -> artifact_pb.CreateDownloadResponse:
    """A signed GET."""
    return artifact_pb.CreateDownloadResponse(
        artifact=artifact_to_proto(artifact), url=url, expires_at=_stamp(expire_time)
    )


def _stamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
