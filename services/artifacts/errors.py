"""What can go wrong with inputs and artifacts, in the contract's words."""

from __future__ import annotations

from libs.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)


class InputNotFound(NotFound):
    """No such input in the caller's workspace, or it has expired."""

    reason = "JOB_INPUT_NOT_FOUND"


class InputNotReady(FailedPrecondition):
    """The slot is there, its bytes are not."""

    reason = "JOB_INPUT_NOT_READY"


class InputMismatch(InvalidRequest):
    """What complete says is not what the slot or the store has; `details.field` names it."""


class InputLimit(ResourceExhausted):
    """The workspace has used up its room for inputs."""

    reason = "JOB_INPUT_LIMIT"


class InputTooLarge(PayloadTooLarge):
    """One input is larger than any may be."""


class InputsUnavailable(Unavailable):
    """The store of inputs does not answer."""

    reason = "JOB_INPUTS_UNAVAILABLE"


class InvalidName(InvalidRequest):
    """A file name that cannot be kept safely."""


class InvalidCursor(InvalidRequest):
    """A page cursor that was not made here for this workspace."""


class ArtifactNotFound(NotFound):
    """No such artifact of the job."""


class ArtifactNotReady(FailedPrecondition):
    """The artifact was announced and its bytes are not stored."""

    reason = "ARTIFACT_NOT_READY"


class ArtifactConflict(AlreadyExists):
    """The name is taken, in this attempt, by other bytes or by a failed upload, and stays so: a
    node does not try again."""

    reason = "ARTIFACT_CONFLICT"


class ArtifactNotUploaded(FailedPrecondition):
    """Commit before any bytes came: send them and commit again."""

    reason = "ARTIFACT_NOT_UPLOADED"


class ArtifactMismatch(FailedPrecondition):
    """The bytes are not those that were announced; the artifact has failed for good."""

    reason = "ARTIFACT_MISMATCH"


class ArtifactLimit(PayloadTooLarge):
    """More than a job may keep. Not ResourceExhausted, which a node takes for "later"."""

    reason = "ARTIFACT_LIMIT"


class StaleAttempt(PermissionDenied):
    """A newer attempt of the job exists."""

    reason = "STALE_ATTEMPT"


class AttemptSealed(PermissionDenied):
    """The attempt is over and takes nothing more."""

    reason = "SEALED"
