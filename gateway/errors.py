"""The contract's error codes and their HTTP status, and the gateway's own reasons."""

from __future__ import annotations

from collections.abc import Mapping

from libs.errors import Code, InvalidRequest, PermissionDenied, Unauthenticated, Unavailable


class KeyInUrl(InvalidRequest):
    """Credentials in a URL end up in histories and logs."""

    def __init__(self) -> None:
        super().__init__(
            "API keys are not accepted in URLs, where logs keep them; send "
            "'Authorization: Bearer jg_...' and revoke this key"
        )


class KeyMissing(Unauthenticated):
    """No bearer key was sent."""

    def __init__(self) -> None:
        super().__init__("this route needs an API key; send 'Authorization: Bearer jg_...'")


class KeyRefused(Unauthenticated):
    """The key is malformed, unknown, revoked or expired: all look alike."""

    def __init__(self) -> None:
        super().__init__(
            "the API key is not valid: it is mistyped, revoked or expired; create a new one"
        )


class ScopeMissing(PermissionDenied):
    """The key is good, but not for this route."""

    def __init__(self, scopes: frozenset[str]) -> None:
        wanted = sorted(scopes)
        super().__init__(
            f"this key lacks the scope for this route; any of these would do: {', '.join(wanted)}",
            details={"required_scopes": wanted},
        )


class KeysUnconfirmed(Unavailable):
    """Whether the key still holds cannot be found out now."""

    def __init__(self) -> None:
        super().__init__(
            "API keys cannot be checked at the moment; try again in a few seconds",
            retry_after_seconds=2.0,
        )


# The first part is the contract's table, the second ours.
STATUS_BY_REASON: Mapping[str, int] = {
    "INVALID_REQUEST": 400,
    "INVALID_EXPECTED_ARTIFACT": 400,
    "UNAUTHORIZED": 401,
    "INSUFFICIENT_FUNDS": 402,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "JOB_INPUT_NOT_FOUND": 404,
    "CONFLICT": 409,
    "JOB_INPUT_NOT_READY": 409,
    "ARTIFACT_NOT_READY": 409,
    "CPU_ONLY_WORKLOAD_UNSUPPORTED": 422,
    "ACCELERATOR_REQUIREMENT_UNSPECIFIED": 422,
    "JOB_SCREENING_BLOCKED": 422,
    "USER_CONCURRENT_LIMIT": 429,
    "JOB_RATE_LIMITED": 429,
    "QUEUE_SATURATED": 429,
    "INTERNAL_ERROR": 500,
    "MAINTENANCE_ACTIVE": 503,
    "JOB_INPUTS_UNAVAILABLE": 503,
    "ARTIFACTS_UNAVAILABLE": 503,
    # ours
    "SIGNATURE_INVALID": 403,
    "SIGNATURE_EXPIRED": 403,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "STREAM_LIMIT": 429,
    "QUOTA_EXCEEDED": 429,
    "UNIMPLEMENTED": 501,
    "PAYOUTS_UNAVAILABLE": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# For reasons that are in no table: the class of the error decides.
STATUS_BY_CODE: Mapping[Code, int] = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 413,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
