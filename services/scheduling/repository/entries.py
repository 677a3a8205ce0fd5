"""Rows of the queue. Statements are built once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from libs.db import Tx
from libs.tenancy import SystemScope, Tenant
from services.scheduling.domain import Entry, EntryState, Mode, Shape
from services.scheduling.tables import entries


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a job's place in the queue."""

    attempt: int
    state: EntryState
    event_seq: int


_KNOWN = select(entries.c.attempt, entries.c.state, entries.c.event_seq).where(
    entries.c.workspace_id == bindparam("workspace_id"), entries.c.job_id == bindparam("job_id")
)
_ADD_ENTRY = insert(entries)
_ENTRY_KEY = (
    entries.c.workspace_id == bindparam("key_workspace"),
    entries.c.job_id == bindparam("key_job"),
)
_REQUEUE = (
    update(entries)
    .where(*_ENTRY_KEY)
    .values(
        attempt=bindparam("attempt"),
        state=bindparam("state"),
        event_seq=bindparam("event_seq"),
        needs=bindparam("needs"),
        submitted_time=bindparam("submitted_time"),
        changed_time=bindparam("changed_time"),
    )
)
_PLACED = (
    update(entries)
    .where(
        *_ENTRY_KEY,
        entries.c.attempt == bindparam("key_attempt"),
        entries.c.state == EntryState.WAITING.value,
    )
    .values(
        state=EntryState.PLACED.value,
        event_seq=entries.c.event_seq + 1,
        changed_time=bindparam("now"),
    )
)
_END = (
    update(entries)
    .where(*_ENTRY_KEY)
    .values(state=EntryState.ENDED.value, needs=None, changed_time=bindparam("now"))
)
_STOP = (
    update(entries)
    .where(*_ENTRY_KEY, entries.c.state != EntryState.ENDED.value)
    .values(attempt=bindparam("attempt"), state=bindparam("state"), changed_time=bindparam("now"))
)
_WAITING = select(entries).where(entries.c.state == EntryState.WAITING.value)
_WAITING_OF = _WAITING.where(entries.c.job_id.in_(bindparam("ids", expanding=True)))
_OVER = (
    select(entries.c.workspace_id, entries.c.job_id)
    .where(
        entries.c.state.in_((EntryState.ENDED.value, EntryState.STOPPED.value)),
        entries.c.changed_time < bindparam("before"),
    )
    .limit(bindparam("limit"))
)
_PURGE = delete(entries).where(*_ENTRY_KEY)
_COUNT = select(func.count()).where(entries.c.state == EntryState.WAITING.value)


class QueueRows:
    """Entries of workspaces."""

    def known(self, tx: Tx, tenant: Tenant, job_id: str) -> Known | None:
        """A job's place in the queue."""
        row = tx.execute(_KNOWN, {"workspace_id": tenant.workspace_id, "job_id": job_id}).first()
        return None if row is None else Known(row.attempt, EntryState(row.state), row.event_seq)

    def add_entry(
        self, tx: Tx, tenant: Tenant, entry: Entry, state: EntryState, *, new: bool
    ) -> None:
        """An attempt waits, or is placed as it comes."""
        values = {
            "attempt": entry.attempt,
            "state": state.value,
            "event_seq": entry.event_seq,
            "needs": _needs(entry),
            "submitted_time": entry.submitted_time,
            "changed_time": tx.now(),
        }
        if new:
            key = {"workspace_id": tenant.workspace_id, "job_id": entry.job_id}
            tx.execute(_ADD_ENTRY, key | values)
        else:
            tx.execute(_REQUEUE, _key(tenant, entry.job_id) | values)

    def mark_placed(self, tx: Tx, tenant: Tenant, entry: Entry) -> bool:
        """WAITING -> PLACED; False when this attempt does not wait any more."""
        key = _key(tenant, entry.job_id) | {"key_attempt": entry.attempt, "now": tx.now()}
        return tx.execute(_PLACED, key).rowcount == 1

    def stop(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int, *, new: bool) -> None:
        """Attempts up to this one wait no more."""
        state = EntryState.STOPPED.value
        if new:
            tx.execute(_ADD_ENTRY, _tombstone(tenant, job_id, attempt, state, tx.now()))
            return
        values = {"attempt": attempt, "state": state, "now": tx.now()}
        tx.execute(_STOP, _key(tenant, job_id) | values)

    def end(self, tx: Tx, tenant: Tenant, job_id: str) -> None:
        """The job waits never again; the row stays as a tombstone for facts that come late."""
        if tx.execute(_END, _key(tenant, job_id) | {"now": tx.now()}).rowcount == 0:
            state = EntryState.ENDED.value
            tx.execute(_ADD_ENTRY, _tombstone(tenant, job_id, 0, state, tx.now()))

    def waiting(
        self, tx: Tx, scope: SystemScope, job_ids: Sequence[str] | None = None
    ) -> list[Entry]:
        """Entries that wait: all, or those of some jobs."""
        if job_ids is None:
            rows = tx.execute(_WAITING)
        else:
            rows = tx.execute(_WAITING_OF, {"ids": list(job_ids)})
        return [_entry(row) for row in rows]

    def purge(self, tx: Tx, scope: SystemScope, before: datetime, limit: int) -> int:
        """Forgets jobs that have been over for long; returns how many."""
        rows = tx.execute(_OVER, {"before": before, "limit": limit}).all()
        if rows:
            tx.execute(_PURGE, [_key(Tenant(row.workspace_id), row.job_id) for row in rows])
        return len(rows)

    def count(self, tx: Tx, scope: SystemScope) -> int:
        """How many wait."""
        return int(tx.execute(_COUNT).scalar_one())


def _key(tenant: Tenant, job_id: str) -> dict[str, Any]:
    return {"key_workspace": tenant.workspace_id, "key_job": job_id}


def _tombstone(
    tenant: Tenant, job_id: str, attempt: int, state: str, now: datetime
) -> dict[str, Any]:
    return {
        "workspace_id": tenant.workspace_id,
        "job_id": job_id,
        "attempt": attempt,
        "state": state,
        "event_seq": 0,
        "needs": None,
        "submitted_time": None,
        "changed_time": now,
    }


def _needs(entry: Entry) -> dict[str, Any]:
    return {
        "shape": asdict(entry.shape),
        "tasks": entry.tasks,
        "timeout_seconds": entry.timeout_seconds,
        "reservation_id": entry.reservation_id,
        "avoid": sorted(entry.avoid),
    }


def _entry(row: Row[Any]) -> Entry:
    needs: dict[str, Any] = row.needs
    shape = dict(needs["shape"])
    shape["mode"] = Mode(shape["mode"])
    shape["avoid_families"] = tuple(shape["avoid_families"])
    return Entry(
        workspace_id=row.workspace_id,
        job_id=row.job_id,
        attempt=row.attempt,
        shape=Shape(**shape),
        tasks=needs["tasks"],
        submitted_time=row.submitted_time,
        timeout_seconds=needs["timeout_seconds"],
        reservation_id=needs["reservation_id"],
        avoid=frozenset(needs["avoid"]),
        event_seq=row.event_seq,
    )
