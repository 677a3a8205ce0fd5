"""What deliveries need from outside."""

from __future__ import annotations

from typing import Protocol

from services.webhooks.domain.delivery import Answer
from services.webhooks.domain.payload import CallbackFacts


class Jobs(Protocol):
    """jobs."""

    async def get_callback(self, job_id: str) -> CallbackFacts:
        """Target and facts of a final job's callback; raises NotFound when there is none."""


class Sender(Protocol):
    """The way out."""

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """One POST. Raises AddressBlocked when policy forbids the address; a failure on the way is
        an Answer without status."""
