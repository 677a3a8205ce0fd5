"""What an accepted submit is answered, now and on every repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from services.jobs.domain.job import Job
from services.jobs.domain.states import Status

ROUTE = "standard_managed"


@dataclass(frozen=True, slots=True)
class Submitted:
    """The 202. `hourly` and `reserved` are micro-USD."""

    job_id: str
    queued_time: datetime
    route_reason: str
    artifacts: tuple[str, ...]
    requested_route: str
    relaxed: tuple[str, ...]
    hourly: int
    reserved: int
    client_id: str
    status: Status = Status.QUEUED

    @classmethod
    def of(cls, job: Job) -> Submitted:
        """The answer for a job that has been queued."""
        kind = "GPU" if job.spec.resources.gpu is not None else "CPU"
        reason = f"Selected managed {kind} route."
        waiting = f" It waits: {job.waiting}" if job.waiting else ""
        return cls(
            job_id=job.job_id,
            queued_time=job.queued_time or job.created_time,
            route_reason=reason + waiting,
            artifacts=job.spec.expected_artifacts,
            requested_route=job.spec.constraints.optimize_for or "balanced",
            relaxed=job.hold.relaxed,
            hourly=job.hold.hourly,
            reserved=job.hold.amount,
            client_id=job.spec.client_id,
        )

    def as_json(self) -> dict[str, Any]:
        """For the idempotency row; `from_json` is the way back."""
        found = asdict(self)
        found["queued_time"] = self.queued_time.isoformat()
        found["status"] = self.status.value
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Submitted:
        """The stored answer."""
        values = dict(found)
        values["queued_time"] = datetime.fromisoformat(found["queued_time"])
        values["status"] = Status(found["status"])
        values["artifacts"] = tuple(found["artifacts"])
        values["relaxed"] = tuple(found["relaxed"])
        return cls(**values)
