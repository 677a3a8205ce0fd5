"""The jobs that one batch of facts is about: read once, written once, at the end of the batch.

A job of a few milliseconds brings its opened, claimed, started, exited and closed in one batch.
Each fact is applied to the aggregate in memory as if it came alone, and the last one's row is what
is written, guarded by the version that was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from libs.db import Tx
from libs.telemetry import logger
from libs.tenancy import Tenant
from services.jobs.domain.change import Change
from services.jobs.domain.job import Activity, Attempt, Fact, Job
from services.jobs.service.ports import Tools

_KEY = "jobs.working"
_log = logger("jobs.facts")


@dataclass(slots=True)
class _Entry:
    """One job: as it is now, and what has to be written."""

    tenant: Tenant
    job: Job
    attempts: dict[int, Attempt]
    changed: bool = False
    unseals: bool = False
    stored: set[int] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)
    activities: list[Activity] = field(default_factory=list)
    told: list[tuple[Job, int, Fact]] = field(default_factory=list)


class Working:
    """The working set of one transaction."""

    def __init__(self, tools: Tools, tx: Tx) -> None:
        self._tools = tools
        self._tx = tx
        self._entries: dict[tuple[str, str], _Entry | None] = {}

    @classmethod
    def of(cls, tools: Tools, tx: Tx) -> Working:
        """The set of this transaction; written when its function has returned."""

        def make() -> Working:
            made = cls(tools, tx)
            tx.before_commit(made.write)
            return made

        return tx.memo(_KEY, make)

    def job(self, tenant: Tenant, job_id: str) -> Job | None:
        """The job as the facts before have left it."""
        entry = self._entry(tenant, job_id)
        return None if entry is None else entry.job

    def attempts(self, tenant: Tenant, job_id: str) -> dict[int, Attempt]:
        """Its attempts by number."""
        entry = self._entry(tenant, job_id)
        return {} if entry is None else entry.attempts

    def keep(self, tenant: Tenant, change: Change) -> None:
        """Takes the effects of a transition."""
        entry = self._entry(tenant, change.job.job_id)
        if entry is None:
            raise LookupError(change.job.job_id)
        if change.changed:
            entry.job, entry.changed = change.job, True
            entry.unseals |= change.unseals
        attempt = change.attempt
        if attempt is not None and attempt is not change.attempt_before:
            entry.attempts[attempt.number] = attempt
            entry.touched.add(attempt.number)
        entry.activities += change.activities
        entry.told += [(change.job, number, fact) for number, fact in change.told]

    def put(self, tenant: Tenant, job: Job) -> None:
        """Takes a job that changed without an event."""
        entry = self._entry(tenant, job.job_id)
        if entry is None:
            raise LookupError(job.job_id)
        entry.job, entry.changed = job, True

    def write(self) -> None:
        """Rows, activities and facts of all jobs. Raises StaleWrite when one of them moved."""
        entries = [entry for entry in self._entries.values() if entry is not None]
        repository, tx = self._tools.repository, self._tx
        repository.update_all(tx, [entry.job for entry in entries if entry.changed])
        repository.drop_environments(tx, [entry.job for entry in entries if entry.unseals])
        # An attempt is closed before the next one is opened: the index wants one open at most.
        repository.update_attempts(
            tx, [e.attempts[n] for e in entries for n in sorted(e.touched & e.stored)]
        )
        repository.add_attempts(
            tx, [e.attempts[n] for e in entries for n in sorted(e.touched - e.stored)]
        )
        repository.add_activities(
            tx, [(entry.job, activity) for entry in entries for activity in entry.activities]
        )
        for entry in entries:
            for job, number, fact in entry.told:
                tx.emit(self._tools.tell(job, number, fact, tx.now()))

    def _entry(self, tenant: Tenant, job_id: str) -> _Entry | None:
        key = (tenant.workspace_id, job_id)
        if key not in self._entries:
            self._entries[key] = self._read(tenant, job_id)
        return self._entries[key]

    def _read(self, tenant: Tenant, job_id: str) -> _Entry | None:
        job = self._tools.repository.get(self._tx, tenant, job_id)
        if job is None:
            # A submit that was taken back has no row; nothing else may end up here.
            _log.warning("a fact about a job that is not here", job_id=job_id)
            return None
        found = self._tools.repository.attempts(self._tx, tenant, job_id)
        attempts = {each.number: each for each in found}
        return _Entry(tenant, job, attempts, stored=set(attempts))
