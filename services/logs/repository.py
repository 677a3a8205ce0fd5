"""Rows of the logs service as values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Integer, bindparam, delete, insert, select, update

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import Scope, SystemScope, Tenant
from services.logs.domain import FINAL, Cursor, Entry, JobLog, Line, Stream
from services.logs.tables import job_log, log_chunk

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, int, str, bool, int]]).decode
_cursors = msgspec.json.Decoder(dict[str, tuple[int, int | None]]).decode

_SELECT = select(job_log).where(
    job_log.c.workspace_id == bindparam("w"), job_log.c.job_id == bindparam("j")
)
_SELECT_BY_JOB = select(job_log).where(job_log.c.job_id == bindparam("j"))
_INSERT = insert(job_log)
_UPDATE = (
    update(job_log)
    .where(
        job_log.c.workspace_id == bindparam("w"),
        job_log.c.job_id == bindparam("j"),
        job_log.c.version == bindparam("v"),
    )
    .values(
        {
            column.name: bindparam(column.name)
            for column in job_log.columns
            if not column.primary_key
        }
    )
)
_INSERT_CHUNK = insert(log_chunk)
_BITS = {Stream.STDOUT: 1, Stream.STDERR: 2, Stream.SYSTEM: 4}
_ALL = sum(_BITS.values())
_WANTED = log_chunk.c.streams.bitwise_and(bindparam("streams", type_=Integer)) != 0
_OF_JOB = (log_chunk.c.workspace_id == bindparam("w"), log_chunk.c.job_id == bindparam("j"))
_AFTER = (
    select(log_chunk)
    .where(*_OF_JOB, _WANTED, log_chunk.c.last_entry_id > bindparam("after"))
    .order_by(log_chunk.c.last_entry_id)
)
_BEFORE = select(log_chunk).where(*_OF_JOB, _WANTED).order_by(log_chunk.c.last_entry_id.desc())
_EXPIRED = (
    select(job_log.c.workspace_id, job_log.c.job_id)
    .where(job_log.c.finished_time < bindparam("before"))
    .limit(200)
)
_DELETE_CHUNKS = delete(log_chunk).where(*_OF_JOB)
_DELETE_LOG = delete(job_log).where(
    job_log.c.workspace_id == bindparam("w"), job_log.c.job_id == bindparam("j")
)


class LogsRepository:
    """Heads and chunks of logs. Every method names whose rows it may touch."""

    def get(self, tx: Tx, scope: Scope, job_id: str) -> JobLog | None:
        """The head of a job's log, if this service has heard of the job."""
        if isinstance(scope, Tenant):
            row = tx.execute(_SELECT, {"w": scope.workspace_id, "j": job_id}).one_or_none()
        else:
            row = tx.execute(_SELECT_BY_JOB, {"j": job_id}).one_or_none()
        return None if row is None else _head(row)

    def save(self, tx: Tx, log: JobLog) -> None:
        """Writes the head. Raises StaleWrite when another writer was faster."""
        values = _values(log, tx.now())
        if log.version == 0:
            tx.execute(_INSERT, values | {"workspace_id": log.workspace_id, "job_id": log.job_id})
            return
        where = {"w": log.workspace_id, "j": log.job_id, "v": log.version}
        result = tx.execute(_UPDATE, values | where)
        if result.rowcount == 0:
            raise StaleWrite(log.job_id)

    def add_lines(
        self, tx: Tx, log: JobLog, origin: tuple[int, int], lines: Sequence[Line]
    ) -> None:
        """Stores `lines` of `origin` (attempt, task), whose numbers follow `log.last_entry_id`."""
        tx.execute(
            _INSERT_CHUNK,
            {
                "workspace_id": log.workspace_id,
                "job_id": log.job_id,
                "first_entry_id": log.next_entry_id,
                "last_entry_id": log.last_entry_id + len(lines),
                "attempt": origin[0],
                "task_index": origin[1],
                "streams": _streams(lines),
                "lines": _encode([_packed(line) for line in lines]),
                "received_time": tx.now(),
            },
        )

    def after(
        self, tx: Tx, tenant: Tenant, job_id: str, cursor: int, limit: int, only: Stream | None
    ) -> list[Entry]:
        """At most `limit` entries after `cursor`, oldest first."""
        keys = {**_keys(tenant, job_id, only), "after": cursor}
        found: list[Entry] = []
        for chunk in tx.execute(_AFTER, keys).yield_per(16):
            found += [e for e in _entries(chunk, only) if e.entry_id > cursor]
            if len(found) >= limit:
                break
        return found[:limit]

    def latest(
        self, tx: Tx, tenant: Tenant, job_id: str, limit: int, only: Stream | None
    ) -> list[Entry]:
        """The latest `limit` entries, oldest first."""
        parts: list[list[Entry]] = []
        left = limit
        for chunk in tx.execute(_BEFORE, _keys(tenant, job_id, only)).yield_per(16):
            parts.append(list(_entries(chunk, only)))
            left -= len(parts[-1])
            if left <= 0:
                break
        found = [entry for part in reversed(parts) for entry in part]
        return found[-limit:] if limit else []

    def expire(self, tx: Tx, scope: SystemScope, before: datetime) -> int:
        """Deletes the logs of up to 200 jobs that ended before `before`; returns how many."""
        rows = tx.execute(_EXPIRED, {"before": before}).all()
        for row in rows:
            keys = {"w": row.workspace_id, "j": row.job_id}
            tx.execute(_DELETE_CHUNKS, keys)
            tx.execute(_DELETE_LOG, keys)
        return len(rows)


def _keys(tenant: Tenant, job_id: str, only: Stream | None) -> dict[str, Any]:
    wanted = _ALL if only is None else _BITS[only]
    return {"w": tenant.workspace_id, "j": job_id, "streams": wanted}


def _streams(lines: Sequence[Line]) -> int:
    return sum(_BITS[stream] for stream in {line.stream for line in lines})


def _packed(line: Line) -> tuple[str, int, str, bool, int]:
    return (line.stream.value, line.seq, line.text, line.partial, line.node_time_micros)


def _entries(chunk: Any, only: Stream | None) -> Iterable[Entry]:
    for index, (stream, seq, text, partial, node_time) in enumerate(_decode(chunk.lines)):
        if only is None or stream == only.value:
            line = Line(Stream(stream), seq, text, partial, node_time)
            entry_id = chunk.first_entry_id + index
            yield Entry(entry_id, chunk.attempt, line, chunk.received_time)


def _head(row: Any) -> JobLog:
    values = dict(row._mapping)
    values.pop("finished_time")
    values["cursors"] = {
        key: Cursor(last, end) for key, (last, end) in _cursors(values["cursors"]).items()
    }
    return JobLog(**values)


def _values(log: JobLog, now: datetime) -> dict[str, Any]:
    values = asdict(log)
    del values["workspace_id"], values["job_id"]
    cursors = {key: (cursor.last, cursor.end) for key, cursor in log.cursors.items()}
    values["cursors"] = msgspec.json.encode(cursors).decode()
    values["finished_time"] = now if log.status in FINAL else None
    values["version"] = log.version + 1
    return values
