"""What can go wrong with logs, in the contract's words."""

from __future__ import annotations

from libs.errors import InvalidRequest


class InvalidCursor(InvalidRequest):
    """A cursor that this service never gave."""
