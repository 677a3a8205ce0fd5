"""Reasons of nodes."""

from __future__ import annotations

from libs.errors import FailedPrecondition, InvalidRequest, NotFound, Unauthenticated


class EnrolmentRefused(Unauthenticated):
    """One answer for an unknown, a used and an expired token."""

    reason = "ENROLMENT_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__(
            "the enrolment token is not valid: it is unknown, used or expired; make a new one"
        )


class CredentialRefused(Unauthenticated):
    """One answer for an unknown credential and a revoked node."""

    reason = "NODE_CREDENTIAL_INVALID"

    def __init__(self) -> None:
        super().__init__("the node credential is not valid; enrol the node again")


class NodeNotFound(NotFound):
    """No such node."""

    reason = "NODE_NOT_FOUND"


class LeaseNotFound(NotFound):
    """No such lease of this node; another node's lease answers the same."""

    reason = "LEASE_NOT_FOUND"


class StaleSession(FailedPrecondition):
    """A newer session of the same node exists, or the node was given up."""

    reason = "STALE_SESSION"

    def __init__(self) -> None:
        super().__init__("this node session is over; open a new Sync stream")


class IllegalMove(InvalidRequest):
    """The report does not follow from the lease's state."""

    reason = "ILLEGAL_LEASE_MOVE"


class LaunchRefused(Exception):
    """jobs does not want the attempt any more. Never leaves this service."""
