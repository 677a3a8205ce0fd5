"""Reads of people: one job, many jobs, events, runtime."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from libs.db import Tx
from libs.errors import GridError
from libs.telemetry import logger
from libs.tenancy import Tenant
from services.jobs.domain.job import Attempt, Job
from services.jobs.domain.moves import delayed
from services.jobs.domain.shown import Detail, Events, LogTails, Page, Runtime
from services.jobs.domain.states import Status
from services.jobs.errors import JobNotFound, RuntimeNotAvailable
from services.jobs.repository import Position
from services.jobs.service.cursor import Cursors
from services.jobs.service.ports import Tools

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
_log = logger("jobs.reading")


class Reading:
    """The read side. Every method takes the tenant first."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._cursors = Cursors(tools.cursor_key)

    async def get_job(self, tenant: Tenant, job_id: str) -> Detail:
        """One job with its attempts; raises JobNotFound."""
        detail = await self._tools.database.read(lambda tx: self._detail(tx, tenant, job_id))
        if detail.job.status is Status.FAILED and detail.job.started_time is not None:
            return await self._with_excerpt(tenant, detail)
        if detail.delayed and detail.job.status is Status.QUEUED:
            return await self._with_reason(tenant, detail)
        return detail

    async def list_jobs(
        self, tenant: Tenant, *, limit: int | None, cursor: str, status: Status | None
    ) -> Page:
        """A page of jobs; raises CursorInvalid."""
        size = min(max(limit or LIMIT_DEFAULT, 1), LIMIT_MAX)
        after = self._cursors.read(tenant, status, cursor)

        def read(tx: Tx) -> tuple[list[Job], datetime]:
            # One more than asked for says whether there is a next page.
            return self._tools.repository.page(tx, tenant, after, status, size + 1), tx.now()

        found, now = await self._tools.database.read(read)
        shown = found[:size]
        following = None
        if len(found) > size:
            last = Position(shown[-1].created_time, shown[-1].job_id)
            following = self._cursors.write(tenant, status, last)
        return Page(tuple(self._shown(job, now) for job in shown), size, following)

    async def list_job_events(self, tenant: Tenant, job_id: str) -> Events:
        """All lifecycle events of a job; raises JobNotFound."""

        def read(tx: Tx) -> Events:
            job = self._job(tx, tenant, job_id)
            items = self._tools.repository.activities(tx, tenant, job_id)
            return Events(job, tuple(items), tx.now())

        return await self._tools.database.read(read)

    async def get_job_runtime(self, tenant: Tenant, job_id: str) -> Runtime:
        """Exit, times and tails; raises RuntimeNotAvailable before the command has started, unless
        it never will."""
        detail = await self._tools.database.read(lambda tx: self._detail(tx, tenant, job_id))
        job = detail.job
        attempt = detail.attempts[-1] if detail.attempts else None
        if job.started_time is None:
            if not job.final:
                raise RuntimeNotAvailable()
            return Runtime(job, attempt, LogTails(complete=True))
        config = self._tools.config
        tails = await self._tails(
            tenant, job_id, config.runtime_tail_lines, config.runtime_tail_bytes
        )
        return Runtime(job, attempt, tails)

    async def get_ref(self, tenant: Tenant, job_id: str) -> Job:
        """The job; raises JobNotFound."""
        return await self._tools.database.read(lambda tx: self._job(tx, tenant, job_id))

    def _job(self, tx: Tx, tenant: Tenant, job_id: str) -> Job:
        job = self._tools.repository.get(tx, tenant, job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    def _detail(self, tx: Tx, tenant: Tenant, job_id: str) -> Detail:
        job = self._job(tx, tenant, job_id)
        attempts = self._tools.repository.attempts(tx, tenant, job_id) if job.attempt else []
        return self._shown(job, tx.now(), tuple(attempts))

    def _shown(self, job: Job, now: datetime, attempts: tuple[Attempt, ...] = ()) -> Detail:
        late = delayed(job, now, self._tools.config.delayed_start_seconds)
        return Detail(job, now, late, attempts)

    async def _with_excerpt(self, tenant: Tenant, detail: Detail) -> Detail:
        lines, size = (
            self._tools.config.failure_excerpt_lines,
            self._tools.config.runtime_tail_bytes,
        )
        tails = await self._tails(tenant, detail.job.job_id, lines, size)
        excerpt = tails.stderr if tails is not None else ""
        return Detail(detail.job, detail.now, detail.delayed, detail.attempts, excerpt)

    async def _with_reason(self, tenant: Tenant, detail: Detail) -> Detail:
        """Scheduling knows best why the job waits now; without its answer, what it said at submit
        is shown."""
        try:
            waiting = await self._tools.quotes.explain(tenant, detail.job.job_id)
        except GridError as error:
            _log.warning("no reason from scheduling", job_id=detail.job.job_id, error=error.reason)
            return detail
        return replace(detail, job=replace(detail.job, waiting=waiting)) if waiting else detail

    async def _tails(self, tenant: Tenant, job_id: str, lines: int, size: int) -> LogTails | None:
        # Logs being down must not hide a status; the reply says that its tails are delayed.
        try:
            return await self._tools.tails.tails(tenant, job_id, lines, size)
        except GridError as error:
            _log.warning("no tails from logs", job_id=job_id, reason=error.reason)
            return None
