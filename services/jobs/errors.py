"""What jobs can answer besides a job."""

from __future__ import annotations

from libs.errors import Conflict, FailedPrecondition, InvalidRequest, NotFound, Unprocessable


class JobNotFound(NotFound):
    """No such job in the caller's workspace."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job '{job_id[:64]}' was not found in this workspace; check the id")


class RuntimeNotAvailable(NotFound):
    """The command has not started. Clients match this message word for word."""

    def __init__(self) -> None:
        super().__init__("job runtime not available yet")


class DraftRefused(InvalidRequest):
    """The draft is wrong; details.screening says where."""


class ExpectedArtifactInvalid(InvalidRequest):
    """An expected artifact is outside /workspace/artifacts."""

    reason = "INVALID_EXPECTED_ARTIFACT"


class CpuOnlyUnsupported(Unprocessable):
    """Policy: work that needs no GPU is not accepted."""

    reason = "CPU_ONLY_WORKLOAD_UNSUPPORTED"


class AcceleratorUnspecified(Unprocessable):
    """Policy: a job must say whether it needs a GPU."""

    reason = "ACCELERATOR_REQUIREMENT_UNSPECIFIED"


class ScreeningBlocked(Unprocessable):
    """Policy: this grid does not run it."""

    reason = "JOB_SCREENING_BLOCKED"


class IdempotencyKeyReused(Unprocessable):
    """The same Idempotency-Key with another body."""

    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used with another request body; send a new key for a new job"
        )


class ClientIdTaken(Conflict):
    """The same client `id` with another body."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"a job with id '{client_id[:64]}' was submitted with another body;"
            " choose another id for a new job"
        )


class SubmitInFlight(Conflict):
    """The first request with this key has not been answered yet."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "a submit with this key is still being handled; send it again after Retry-After",
            retry_after_seconds=retry_after_seconds,
        )


class HoldGone(FailedPrecondition):
    """The credit that an unfinished submit had held was given back in the meantime."""

    def __init__(self) -> None:
        super().__init__("the credit held for this submit was given back; send the request again")


class RegionUnavailable(Conflict):
    """region_mode is strict and nothing there can take the job."""


class AlreadyFinal(Conflict):
    """A final job cannot be cancelled."""


class LaunchRefused(Conflict):
    """The attempt is not current any more, or the job is final."""


class CursorInvalid(InvalidRequest):
    """A page cursor that this service did not make for this list."""

    def __init__(self) -> None:
        super().__init__("cursor is not valid here; send next_cursor of the page before, or 0")


class IllegalMove(Exception):
    """A transition that the state machine does not have: our fault, never a caller's."""
