"""Rows of the queue. Statements are built once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, literal_column, select, update

from libs.db import Bulk, Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.scheduling.domain import Entry, EntryState, Mode, Shape
from services.scheduling.tables import entries


@dataclass(slots=True)
class Place:
    """A job's place in the queue while a unit of work changes it. `seen` is what its row said, None
    without a row; `entry` is set when the place waits, or did in this unit."""

    attempt: int = 0
    state: EntryState = EntryState.STOPPED
    event_seq: int = 0
    seen: tuple[int, str] | None = None
    entry: Entry | None = None
    changed: bool = False


_KNOWN = select(entries.c.attempt, entries.c.state, entries.c.event_seq).where(
    entries.c.workspace_id == bindparam("workspace_id"), entries.c.job_id == bindparam("job_id")
)
_ENTRY_KEY = (
    entries.c.workspace_id == bindparam("key_workspace"),
    entries.c.job_id == bindparam("key_job"),
)
_VALUES = ("attempt", "state", "event_seq", "needs", "submitted_time", "changed_time")
_ADD = Bulk(insert(entries), "workspace_id", "job_id", *_VALUES)
# Guarded by what the row said when the unit of work read it.
_UPDATE = Bulk(
    update(entries)
    .where(
        *_ENTRY_KEY,
        entries.c.attempt == bindparam("key_attempt"),
        entries.c.state == bindparam("key_state"),
    )
    .values({name: bindparam(name) for name in _VALUES}),
    *_VALUES,
    "key_workspace",
    "key_job",
    "key_attempt",
    "key_state",
)
# Values in the text of the statement: a Bulk has no parameters but those of its rows.
_PLACED = (
    update(entries)
    .where(
        *_ENTRY_KEY,
        entries.c.attempt == bindparam("key_attempt"),
        entries.c.state == literal_column(f"'{EntryState.WAITING.value}'"),
    )
    .values(
        state=literal_column(f"'{EntryState.PLACED.value}'"),
        event_seq=entries.c.event_seq + literal_column("1"),
        changed_time=bindparam("now"),
    )
)
_ALL_PLACED = Bulk(_PLACED, "key_workspace", "key_job", "key_attempt", "now")
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
_PURGE = Bulk(delete(entries).where(*_ENTRY_KEY), "key_workspace", "key_job")
_COUNT = select(func.count()).where(entries.c.state == EntryState.WAITING.value)


class QueueRows:
    """Entries of workspaces."""

    def place(self, tx: Tx, tenant: Tenant, job_id: str) -> Place:
        """A job's place in the queue; a new one when there is no row."""
        row = tx.execute(_KNOWN, {"workspace_id": tenant.workspace_id, "job_id": job_id}).first()
        if row is None:
            return Place()
        seen = (row.attempt, row.state)
        return Place(row.attempt, EntryState(row.state), row.event_seq, seen)

    def write(self, tx: Tx, scope: SystemScope, places: Mapping[tuple[str, str], Place]) -> None:
        """Writes places that have changed. StaleWrite when a row is not as it was read."""
        now = tx.now()
        new, old = [], []
        for key, place in places.items():
            if place.seen is None:
                new.append((*key, *_values(place, now)))
            else:
                old.append((*_values(place, now), *key, *place.seen))
        tx.execute_bulk(_ADD, new)
        if tx.execute_bulk(_UPDATE, old) != len(old):
            raise StaleWrite("a place in the queue was changed by someone else")

    def mark_placed(self, tx: Tx, tenant: Tenant, entry: Entry) -> bool:
        """WAITING -> PLACED; False when this attempt does not wait any more."""
        key = {
            "key_workspace": tenant.workspace_id,
            "key_job": entry.job_id,
            "key_attempt": entry.attempt,
            "now": tx.now(),
        }
        return tx.execute(_PLACED, key).rowcount == 1

    def mark_all_placed(self, tx: Tx, scope: SystemScope, placed: Sequence[Entry]) -> int:
        """The same for many; returns for how many it was so."""
        now = tx.now()
        rows = [(each.workspace_id, each.job_id, each.attempt, now) for each in placed]
        return tx.execute_bulk(_ALL_PLACED, rows)

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
            tx.execute_bulk(_PURGE, [tuple(row) for row in rows])
        return len(rows)

    def count(self, tx: Tx, scope: SystemScope) -> int:
        """How many wait."""
        return int(tx.execute(_COUNT).scalar_one())


def _values(place: Place, now: datetime) -> tuple[Any, ...]:
    """As _VALUES. Only what waits has to say what for."""
    entry = place.entry if place.state is EntryState.WAITING else None
    return (
        place.attempt,
        place.state.value,
        place.event_seq,
        None if entry is None else _needs(entry),
        None if entry is None else entry.submitted_time,
        now,
    )


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
