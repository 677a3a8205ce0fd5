"""The one error vocabulary. It survives every hop: servicer, wire, gateway, client.

`code` is the coarse class a machine acts on, `reason` is the
stable public word, `message` says to a person what happened and what to do about it. A service
narrows these classes in its own `errors.py` and sets `reason` as a class attribute.

    GridError
      InvalidRequest  Unauthenticated  PermissionDenied  NotFound
      Conflict  AlreadyExists  FailedPrecondition  Unprocessable
      ResourceExhausted  PayloadTooLarge
      Unavailable  DeadlineExceeded  Cancelled  Unimplemented  Internal
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar


class Code(IntEnum):
    """Canonical status codes, with gRPC's numbers, so that the wire needs no table."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GridError(Exception):
    """A failure with a public meaning.

    `details` must be JSON-able and free of secrets: it reaches the caller as it is.
    `retry_after_seconds` is set when the same call may succeed later.
    """

    code: Code = Code.INTERNAL
    reason: str = "INTERNAL_ERROR"
    kind: ClassVar[str] = "GridError"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_seconds = retry_after_seconds

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


class InvalidRequest(GridError):
    """The request can never succeed as written."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_REQUEST"
    kind = "InvalidRequest"


class Unauthenticated(GridError):
    """No valid proof of who is calling."""

    code, reason = Code.UNAUTHENTICATED, "UNAUTHORIZED"
    kind = "Unauthenticated"


class PermissionDenied(GridError):
    """Known caller, not allowed."""

    code, reason = Code.PERMISSION_DENIED, "FORBIDDEN"
    kind = "PermissionDenied"


class NotFound(GridError):
    """No such thing in the caller's workspace (a foreign id answers the same)."""

    code, reason = Code.NOT_FOUND, "NOT_FOUND"
    kind = "NotFound"


class Conflict(GridError):
    """The thing's present state refuses the change; re-read before trying again."""

    code, reason = Code.ABORTED, "CONFLICT"
    kind = "Conflict"


class AlreadyExists(GridError):
    """The caller chose an identity that is taken."""

    code, reason = Code.ALREADY_EXISTS, "CONFLICT"
    kind = "AlreadyExists"


class FailedPrecondition(GridError):
    """Legal in itself, not in this state."""

    code, reason = Code.FAILED_PRECONDITION, "CONFLICT"
    kind = "FailedPrecondition"


class Unprocessable(GridError):
    """Well formed, but refused by a rule; the subclass or the caller must name the reason."""

    code, reason = Code.FAILED_PRECONDITION, "UNPROCESSABLE"
    kind = "Unprocessable"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(
            message, reason=reason, details=details, retry_after_seconds=retry_after_seconds
        )
        if self.reason == Unprocessable.reason:
            raise TypeError("Unprocessable needs a reason of its own")


class ResourceExhausted(GridError):
    """A limit, quota or balance is used up."""

    code, reason = Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"
    kind = "ResourceExhausted"


class PayloadTooLarge(GridError):
    """More bytes than the limit that the message names."""

    code, reason = Code.OUT_OF_RANGE, "PAYLOAD_TOO_LARGE"
    kind = "PayloadTooLarge"


class Unavailable(GridError):
    """A part that is needed cannot answer now."""

    code, reason = Code.UNAVAILABLE, "UNAVAILABLE"
    kind = "Unavailable"


class DeadlineExceeded(GridError):
    """Time ran out; whether the effect happened is unknown."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"
    kind = "DeadlineExceeded"


class Cancelled(GridError):
    """The caller gave up."""

    code, reason = Code.CANCELLED, "CANCELLED"
    kind = "Cancelled"


class Unimplemented(GridError):
    """This server does not offer the method."""

    code, reason = Code.UNIMPLEMENTED, "UNIMPLEMENTED"
    kind = "Unimplemented"


class Internal(GridError):
    """Our fault. The message carries an error id only; the log has the rest."""

    code, reason = Code.INTERNAL, "INTERNAL_ERROR"
    kind = "Internal"


class StaleWrite(Exception):
    """A guarded update touched zero rows: someone else moved the row; re-read and decide again."""


KINDS: Mapping[str, type[GridError]] = {
    cls.kind: cls
    for cls in (
        InvalidRequest,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        Conflict,
        AlreadyExists,
        FailedPrecondition,
        Unprocessable,
        ResourceExhausted,
        PayloadTooLarge,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unimplemented,
        Internal,
    )
}

BY_CODE: Mapping[Code, type[GridError]] = {
    Code.CANCELLED: Cancelled,
    Code.UNKNOWN: Internal,
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.RESOURCE_EXHAUSTED: ResourceExhausted,
    Code.FAILED_PRECONDITION: FailedPrecondition,
    Code.ABORTED: Conflict,
    Code.OUT_OF_RANGE: PayloadTooLarge,
    Code.UNIMPLEMENTED: Unimplemented,
    Code.INTERNAL: Internal,
    Code.UNAVAILABLE: Unavailable,
    Code.DATA_LOSS: Internal,
    Code.UNAUTHENTICATED: Unauthenticated,
}
