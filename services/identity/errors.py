"""Reasons of identity."""

from __future__ import annotations

from libs.errors import InvalidRequest, NotFound, ResourceExhausted, Unauthenticated


class KeyRefused(Unauthenticated):
    """One answer for an unknown, a revoked and an expired key: a guesser learns nothing."""

    def __init__(self) -> None:
        super().__init__(
            "the API key is not valid: it is unknown, revoked or expired; "
            "create a new one and send it as 'Authorization: Bearer jg_...'"
        )


class AccountNotFound(NotFound):
    """No such account."""


class WorkspaceNotFound(NotFound):
    """No such workspace, or it belongs to another account."""


class KeyNotFound(NotFound):
    """No such key in this workspace."""


class UnknownScope(InvalidRequest):
    """A scope that no route asks for."""


class TooManyKeys(ResourceExhausted):
    """The workspace has as many live keys as it may have."""

    reason = "QUOTA_EXCEEDED"
