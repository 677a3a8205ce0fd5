"""GridError to gRPC status and back: `google.rpc.Status` with ErrorInfo and RetryInfo."""

from __future__ import annotations

import json
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from libs.errors import BY_CODE, KINDS, Code, GridError, Unavailable

DOMAIN = "junglegrid"
DETAILS_KEY = "grpc-status-details-bin"
# HTTP/2 header limits are small; a reply that is refused for its size would hide the error itself.
_DETAILS_BYTES_MAX = 16 * 1024

_GRPC: dict[Code, grpc.StatusCode] = {
    code: next(status for status in grpc.StatusCode if status.value[0] == code) for code in Code
}


def to_grpc(error: GridError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, message and trailing metadata for `context.abort`."""
    status = status_pb2.Status(code=int(error.code), message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_metadata(error))
    )
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return _GRPC[error.code], error.message, ((DETAILS_KEY, status.SerializeToString()),)


def from_grpc(failure: grpc.aio.AioRpcError) -> GridError:
    """The error the server raised; for a failure of the call itself, one of our own."""
    code = Code(failure.code().value[0])
    status = _status(failure)
    if status is None:
        return _transport(code, failure)
    info, retry_after = _unpack(status)
    kind = KINDS.get(info.metadata.get("kind", ""), BY_CODE[code])
    error = kind(
        status.message,
        reason=info.reason or kind.reason,
        details=_json(info.metadata.get("details", "")),
        retry_after_seconds=retry_after,
    )
    if error.code != code:  # a newer peer may know a class that we do not
        error.code = code
    return error


def _metadata(error: GridError) -> dict[str, str]:
    found = {"kind": error.kind}
    if error.details:
        text = json.dumps(error.details, separators=(",", ":"), default=str)
        found["details"] = text if len(text) <= _DETAILS_BYTES_MAX else '{"truncated":true}'
    return found


def _status(failure: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _unpack(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    return info, retry_after


def _transport(code: Code, failure: grpc.aio.AioRpcError) -> GridError:
    if code is Code.UNAVAILABLE:
        # The library's own text names sockets; the caller may be a stranger.
        return Unavailable(
            "a part of the grid does not answer; try again in a moment", retry_after_seconds=1.0
        )
    return BY_CODE[code](failure.details() or code.name.lower().replace("_", " "))


def _json(text: str) -> dict[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
