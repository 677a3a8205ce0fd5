"""Use cases of the logs service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from libs import failpoints
from libs.clock import Clock
from libs.db import Database, Tx, retry_stale
from libs.tenancy import SystemScope, Tenant
from services.logs.config import LogsConfig
from services.logs.domain import (
    FINAL,
    Accepted,
    Batch,
    Entry,
    JobLog,
    Line,
    Page,
    Stream,
    Tail,
    Update,
)
from services.logs.repository import LogsRepository
from services.logs.tail import TailHub

AFTER_INSERT = failpoints.register("logs.append.after_commit", "lines durable, not acknowledged")
_INGEST = SystemScope("lines of a node, checked by its attempt grant")
_FACTS = SystemScope("facts of other services")


@dataclass(frozen=True, slots=True)
class JobRef:
    """What jobs says about a job that this service has not heard of."""

    status: str
    attempt: int


class Jobs(Protocol):
    """The jobs service, as far as logs needs it."""

    async def get_ref(self, tenant: Tenant, job_id: str) -> JobRef:
        """Raises NotFound for an unknown job and for another workspace's."""


@dataclass(frozen=True, slots=True)
class Intake:
    """A node's batch with the identity that its grant proves."""

    workspace_id: str
    job_id: str
    batch: Batch


class LogsService:
    """Stores what nodes send, and gives it back in order."""

    def __init__(
        self,
        *,
        database: Database,
        repository: LogsRepository,
        jobs: Jobs,
        hub: TailHub,
        clock: Clock,
        config: LogsConfig,
    ) -> None:
        self._database = database
        self._repository = repository
        self._jobs = jobs
        self._hub = hub
        self._clock = clock
        self._config = config

    async def append(self, intakes: Sequence[Intake]) -> list[Accepted]:
        """Stores batches in one commit; when this returns, what it accepted is durable."""
        outcome = await retry_stale(
            lambda: self._database.write(lambda tx: [self._append(tx, item) for item in intakes])
        )
        await AFTER_INSERT.hit_async()
        return outcome

    async def list_logs(
        self, tenant: Tenant, job_id: str, cursor: int, limit: int, only: Stream | None
    ) -> Page:
        """Entries after `cursor`, oldest first. Raises NotFound."""
        log = await self._known(tenant, job_id)
        entries = await self._database.read(
            lambda tx: self._repository.after(tx, tenant, job_id, cursor, limit + 1, only)
        )
        return Page(log, entries[:limit], has_more=len(entries) > limit)

    async def tail_logs(self, tenant: Tenant, job_id: str, count: int, only: Stream | None) -> Page:
        """The latest `count` entries, oldest of them first. Raises NotFound."""
        log = await self._known(tenant, job_id)
        entries = await self._database.read(
            lambda tx: self._repository.latest(tx, tenant, job_id, count, only)
        )
        return Page(log, entries, has_more=False)

    async def get_log_tails(
        self, tenant: Tenant, job_id: str, lines: int, size: int
    ) -> tuple[JobLog, Tail, Tail]:
        """The ends of stdout and stderr, cut to `lines` and `size` bytes. Raises NotFound."""
        log = await self._known(tenant, job_id)

        def read(tx: Tx) -> tuple[Tail, Tail]:
            out, err = (
                self._repository.latest(tx, tenant, job_id, lines + 1, stream)
                for stream in (Stream.STDOUT, Stream.STDERR)
            )
            return _tail(out, lines, size), _tail(err, lines, size)

        return (log, *await self._database.read(read))

    async def follow(
        self, tenant: Tenant, job_id: str, cursor: int, only: Stream | None
    ) -> AsyncGenerator[Update]:
        """Status, entries after `cursor`, beats, and the end, which comes after every entry.
        Raises NotFound before the first update."""
        log = await self._known(tenant, job_id)
        status = log.status
        yield Update(status=status)
        if log.gap:
            yield Update(notice=("log_gap", "Part of this log was lost with its node."))
        with self._hub.follow(job_id):
            while True:
                mark = self._hub.mark(job_id)
                log, entries = await self._news(tenant, job_id, cursor)
                if log.status != status and log.status not in FINAL:
                    status = log.status
                    yield Update(status=status)
                for entry in entries:
                    if only is None or entry.line.stream is only:
                        yield Update(entry=entry)
                cursor = entries[-1].entry_id if entries else cursor
                if cursor < log.last_entry_id:
                    continue
                if log.closed:
                    yield Update(end=log)
                    return
                if not await self._hub.changed(job_id, mark, self._config.heartbeat_seconds):
                    yield Update(beat=self._clock.now())

    async def expire_logs(self) -> int:
        """Deletes logs of jobs that ended longer ago than the retention; returns how many."""
        before = self._clock.now() - timedelta(days=self._config.retention_days)
        scope = SystemScope("retention of logs")
        total = 0
        while count := await self._database.write(
            lambda tx: self._repository.expire(tx, scope, before)
        ):
            total += count
        return total

    def apply_status(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, status: str) -> None:
        """A job was queued or started: effect of a fact, in its consumer's transaction."""
        log = self._head(tx, tenant, job_id)
        self._save(tx, log, log.observe(attempt, status))

    def apply_finished(
        self,
        tx: Tx,
        tenant: Tenant,
        job_id: str,
        status: str,
        *,
        exit_code: int | None,
        lease_open: bool,
    ) -> None:
        """A job became final."""
        log = self._head(tx, tenant, job_id)
        self._save(tx, log, log.finish(status, exit_code, lease_open=lease_open))

    def apply_closed(
        self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, *, lost: bool
    ) -> None:
        """A lease closed. Where its node was lost (`lost`) with lines unsent, the log says so; an
        attempt that was claimed and of which nothing has come may have written some too."""
        log = self._head(tx, tenant, job_id)
        nothing_came = log.attempt < attempt
        hole = lost and (nothing_came or (log.attempt == attempt and not log.complete))
        sealed = log.seal(attempt, gap=hole)
        if not hole:
            self._save(tx, log, sealed)
            return
        text = _gap_text(replace(log, cursors={}) if nothing_came else log)
        note = Line(Stream.SYSTEM, 0, text)
        self._repository.add_lines(tx, sealed, (attempt, 0), [note])
        entries = _numbered(sealed, attempt, [note], tx.now())
        self._save(tx, log, sealed.append_system(1), entries)

    def _append(self, tx: Tx, intake: Intake) -> Accepted:
        tenant = Tenant(intake.workspace_id)
        log = self._head(tx, tenant, intake.job_id)
        batch = intake.batch
        after, accepted = log.accept(batch, bytes_max=self._config.job_bytes_max)
        if accepted.refused is not None:
            return accepted
        lines = list(accepted.lines)
        if batch.gap and not log.gap:
            lines.append(Line(Stream.SYSTEM, 0, _gap_text(log)))
            after = after.append_system(1)
        origin = (batch.attempt, batch.task_index)
        for start in range(0, len(lines), self._config.chunk_entries_max):
            part = lines[start : start + self._config.chunk_entries_max]
            at = replace(log, next_entry_id=log.next_entry_id + start)
            self._repository.add_lines(tx, at, origin, part)
        self._save(tx, log, after, _numbered(log, batch.attempt, lines, tx.now()))
        return accepted

    def _head(self, tx: Tx, tenant: Tenant, job_id: str) -> JobLog:
        found = self._repository.get(tx, tenant, job_id)
        return found or JobLog(tenant.workspace_id, job_id)

    def _save(self, tx: Tx, old: JobLog, new: JobLog, entries: Sequence[Entry] = ()) -> None:
        if new == old and old.version:
            return
        self._repository.save(tx, new)
        told = replace(new, version=new.version + 1)
        tx.after_commit(lambda: self._hub.publish(told, entries))

    async def _known(self, tenant: Tenant, job_id: str) -> JobLog:
        """The head; a job not heard of yet is asked for at its owner, so that reads do not depend
        on the bus."""
        log = await self._database.read(lambda tx: self._repository.get(tx, tenant, job_id))
        if log is not None:
            return log
        ref = await self._jobs.get_ref(tenant, job_id)
        return JobLog(tenant.workspace_id, job_id, status=ref.status, status_attempt=ref.attempt)

    async def _news(
        self, tenant: Tenant, job_id: str, cursor: int
    ) -> tuple[JobLog, Sequence[Entry]]:
        recent = self._hub.after(job_id, cursor)
        if recent is not None:
            return recent
        limit = self._config.page_entries_max

        def read(tx: Tx) -> tuple[JobLog | None, list[Entry]]:
            head = self._repository.get(tx, tenant, job_id)
            return head, self._repository.after(tx, tenant, job_id, cursor, limit, None)

        head, entries = await self._database.read(read)
        if head is None:
            head = await self._known(tenant, job_id)
        return head, entries


def _numbered(log: JobLog, attempt: int, lines: Sequence[Line], now: datetime) -> list[Entry]:
    return [
        Entry(log.next_entry_id + index, attempt, line, now) for index, line in enumerate(lines)
    ]


def _tail(entries: Sequence[Entry], lines: int, size: int) -> Tail:
    text = "\n".join(entry.line.text for entry in entries[-lines:])
    cut = text[-size:] if len(text) > size else text
    return Tail(cut, truncated=len(entries) > lines or len(cut) < len(text))


def _gap_text(log: JobLog) -> str:
    stands = ", ".join(
        f"{key.partition('/')[2]} after line {cursor.last}"
        for key, cursor in sorted(log.cursors.items())
        if not cursor.complete
    )
    return f"log gap: lines may be missing from here on ({stands or 'nothing had come yet'})"
