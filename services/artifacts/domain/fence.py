"""Which attempt of a job may write, and how much it has written (invariant I5).

The head follows facts about the job, which may come late, twice or out of order, and the grants
of nodes, which may be ahead of them: `attempt` and `sealed_attempt` only rise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from libs.tenancy import Tenant


class Refusal(StrEnum):
    """Why an attempt may not write."""

    STALE_ATTEMPT = "STALE_ATTEMPT"
    SEALED = "SEALED"


@dataclass(frozen=True, slots=True)
class Writer:
    """What an attempt grant proves."""

    tenant: Tenant
    job_id: str
    attempt: int
    task_index: int


@dataclass(frozen=True, slots=True)
class JobHead:
    """`artifacts` and `size_bytes` count what `attempt` announced. `sealed_tasks` are tasks of
    `attempt` whose lease has closed. `due_time` is set once the job is final: when retention
    looks at it. `tombstone` hides the artifacts of a job whose retention is over."""

    workspace_id: str
    job_id: str
    attempt: int = 0
    sealed_attempt: int = 0
    sealed_tasks: frozenset[int] = frozenset()
    finished: bool = False
    artifacts: int = 0
    size_bytes: int = 0
    due_time: datetime | None = None
    tombstone: bool = False
    version: int = 0

    @property
    def closed_through(self) -> int:
        """Attempts up to this one may not write, whatever their task."""
        return max(self.sealed_attempt, self.attempt - 1)

    def refusal(self, attempt: int, task_index: int) -> Refusal | None:
        """Why a node with a grant for this attempt and task may not write; None when it may."""
        if attempt < self.attempt:
            return Refusal.STALE_ATTEMPT
        if attempt <= self.sealed_attempt:
            return Refusal.SEALED
        if attempt == self.attempt and task_index in self.sealed_tasks:
            return Refusal.SEALED
        return None

    def begin(self, attempt: int) -> JobHead:
        """The head once `attempt` is known to exist: older ones count no more."""
        if attempt <= self.attempt:
            return self
        return replace(self, attempt=attempt, sealed_tasks=frozenset(), artifacts=0, size_bytes=0)

    def announce(self, size_bytes: int) -> JobHead:
        """The head after the current attempt announced a file."""
        return replace(self, artifacts=self.artifacts + 1, size_bytes=self.size_bytes + size_bytes)

    def resize(self, before: int, after: int) -> JobHead:
        """The head after a file was announced anew with another size."""
        return replace(self, size_bytes=self.size_bytes - before + after)

    def seal_task(self, attempt: int, task_index: int) -> JobHead:
        """The head after the lease of one task closed."""
        head = self.begin(attempt)
        if attempt < head.attempt or attempt <= head.sealed_attempt:
            return head
        return replace(head, sealed_tasks=head.sealed_tasks | {task_index})

    def finish(self, attempt: int, due_time: datetime, *, lease_open: bool) -> JobHead:
        """The head after the job became final. Where an attempt is still being torn down it may
        write until its lease closes; otherwise nothing may."""
        head = self.begin(attempt)
        sealed = head.sealed_attempt if lease_open else max(head.sealed_attempt, head.attempt)
        due = head.due_time or due_time
        return replace(head, finished=True, sealed_attempt=sealed, due_time=due)

    def bury(self, due_time: datetime) -> JobHead:
        """Retention is over: the artifacts are hidden, and deleted at `due_time`."""
        return replace(self, tombstone=True, due_time=due_time)
