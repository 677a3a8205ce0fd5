"""What artifacts needs of other services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from libs.tenancy import Tenant


@dataclass(frozen=True, slots=True)
class JobRef:
    """What jobs says about a job that this service has not heard of."""

    attempt: int


class Jobs(Protocol):
    """The jobs service, as far as artifacts needs it."""

    async def get_ref(self, tenant: Tenant, job_id: str) -> JobRef:
        """Raises NotFound for an unknown job and for another workspace's."""
