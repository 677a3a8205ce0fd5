"""What webhooks can answer besides a delivery."""

from __future__ import annotations


class IllegalMove(Exception):
    """A transition that the state machine does not have: our fault, never a caller's."""


class AddressBlocked(Exception):
    """The policy forbids the address of a callback; no connection was made. `why` is safe to
    show."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
