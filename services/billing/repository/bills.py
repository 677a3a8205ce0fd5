"""Rows of bills and of meter readings.

One unit of work may carry a batch of facts, several about one job. It reads a bill once and writes
it once, at its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, insert, select, update

from libs.db import Bulk, Tx
from libs.errors import StaleWrite
from libs.tenancy import SystemScope, Tenant
from services.billing.domain import Bill, Close, Hold, Usage
from services.billing.tables import bills, usage

_KEYS = ("workspace_id", "job_id", "created_time")
_COLUMNS = tuple(column.name for column in bills.c)
_MOVED = tuple(name for name in _COLUMNS if name not in _KEYS)
_ADD_BILLS = Bulk(insert(bills), *_COLUMNS)
_BILL = select(bills).where(
    bills.c.workspace_id == bindparam("workspace_id"), bills.c.job_id == bindparam("job_id")
)
_UPDATE_BILLS = Bulk(
    update(bills)
    .where(
        bills.c.workspace_id == bindparam("key_workspace"),
        bills.c.job_id == bindparam("key_job"),
        bills.c.version == bindparam("key_version"),
    )
    .values({name: bindparam(name) for name in _MOVED}),
    *_MOVED,
    "key_workspace",
    "key_job",
    "key_version",
)
_NEXT_EXHAUST = select(func.min(bills.c.exhaust_time)).where(bills.c.exhaust_time.is_not(None))
_EXHAUSTED = (
    select(bills)
    .where(bills.c.exhaust_time <= bindparam("now"))
    .order_by(bills.c.exhaust_time)
    .limit(bindparam("limit"))
)
_UNHEARD = and_(
    bills.c.attempt == 0,
    bills.c.claimed_attempt == 0,
    ~bills.c.unjudged,
    bills.c.finished_time.is_(None),
    bills.c.created_time < bindparam("orphan_before"),
)
_LATE = bills.c.finished_time < bindparam("late_before")
_LEFT = select(bills).where(bills.c.held_micros > 0, _UNHEARD | _LATE).limit(bindparam("limit"))
_READINGS = select(usage).where(
    usage.c.workspace_id == bindparam("workspace_id"),
    usage.c.job_id == bindparam("job_id"),
    usage.c.attempt == bindparam("attempt"),
)
_READ_ATTEMPTS = (
    select(usage.c.attempt)
    .where(usage.c.workspace_id == bindparam("workspace_id"), usage.c.job_id == bindparam("job_id"))
    .distinct()
    .order_by(usage.c.attempt)
)
_USAGE = (
    "workspace_id",
    "job_id",
    "attempt",
    "lease_id",
    "allocation_id",
    "task_index",
    "node_id",
    "period",
    "outcome",
    "ours",
    "price_micros_per_hour",
    "billed_micros",
    "metered_micros",
    "simulated",
    "claimed_time",
    "exited_time",
    "created_time",
)
_ADD_USAGE = Bulk(insert(usage), *_USAGE)

_BillKey = tuple[str, str]
_AttemptKey = tuple[str, str, int]


@dataclass(slots=True)
class _Pending:
    """What the unit of work has read and changed."""

    bills: dict[_BillKey, Bill] = field(default_factory=dict)
    changed: set[_BillKey] = field(default_factory=set)
    readings: dict[_AttemptKey, list[Usage]] = field(default_factory=dict)
    usage: list[tuple[Any, ...]] = field(default_factory=list)


class BillRows:
    """Every method over a workspace's rows takes its scope first."""

    def bill(self, tx: Tx, tenant: Tenant, job_id: str) -> Bill | None:
        """What is known of a job's money."""
        read = self._pending(tx).bills
        key = (tenant.workspace_id, job_id)
        if key not in read:
            row = tx.execute(_BILL, {"workspace_id": key[0], "job_id": key[1]}).first()
            if row is None:
                return None
            read[key] = _bill(row)
        return read[key]

    def save_bill(self, tx: Tx, bill: Bill) -> None:
        """Writes a bill at the end of the unit of work, which fails with StaleWrite when someone
        else has moved it since it was read."""
        pending = self._pending(tx)
        key = (bill.workspace_id, bill.job_id)
        pending.bills[key] = bill
        pending.changed.add(key)

    def _pending(self, tx: Tx) -> _Pending:
        def begin() -> _Pending:
            made = _Pending()
            tx.before_commit(lambda: _write(tx, made))
            return made

        return tx.memo(BillRows, begin)

    def next_exhaust(self, tx: Tx, scope: SystemScope) -> datetime | None:
        """When the next hold is used up."""
        found: datetime | None = tx.execute(_NEXT_EXHAUST).scalar()
        return found

    def exhausted(self, tx: Tx, scope: SystemScope, limit: int) -> list[Bill]:
        """Bills whose hold is used up now."""
        rows = tx.execute(_EXHAUSTED, {"now": tx.now(), "limit": limit})
        return [_bill(row) for row in rows]

    def left_over(
        self, tx: Tx, scope: SystemScope, orphan_before: datetime, late_before: datetime, limit: int
    ) -> list[Bill]:
        """Bills with a hold that nobody will resolve any more."""
        times = {"orphan_before": orphan_before, "late_before": late_before, "limit": limit}
        return [_bill(row) for row in tx.execute(_LEFT, times)]

    def readings(self, tx: Tx, tenant: Tenant, job_id: str, attempt: int) -> list[Usage]:
        """Meter readings of one attempt, by task."""
        keys = {"workspace_id": tenant.workspace_id, "job_id": job_id, "attempt": attempt}
        found = [_usage(row) for row in tx.execute(_READINGS, keys)]
        found += self._pending(tx).readings.get((tenant.workspace_id, job_id, attempt), ())
        return sorted(found, key=lambda reading: (reading.task_index, reading.lease_id))

    def read_attempts(self, tx: Tx, tenant: Tenant, job_id: str) -> list[int]:
        """Attempts that have a reading."""
        job = (tenant.workspace_id, job_id)
        new = {key[2] for key in self._pending(tx).readings if key[:2] == job}
        keys = {"workspace_id": tenant.workspace_id, "job_id": job_id}
        return sorted(new.union(tx.execute(_READ_ATTEMPTS, keys).scalars()))

    def add_usage(self, tx: Tx, tenant: Tenant, close: Close, reading: Usage, period: int) -> None:
        """Keeps one meter reading; it is never changed."""
        pending = self._pending(tx)
        key = (tenant.workspace_id, close.job_id, close.attempt)
        pending.readings.setdefault(key, []).append(reading)
        pending.usage.append(
            (
                *key,
                close.lease_id,
                close.allocation_id,
                close.task_index,
                close.node_id,
                period,
                close.outcome.value,
                reading.ours,
                close.price_micros_per_hour,
                reading.billed_micros,
                reading.metered_micros,
                close.simulated,
                close.claimed_time,
                close.exited_time,
                tx.now(),
            )
        )


def _write(tx: Tx, pending: _Pending) -> None:
    changed = [pending.bills[key] for key in pending.changed]
    new = [_values(bill, _COLUMNS) for bill in changed if bill.version == 0]
    tx.execute_bulk(_ADD_BILLS, new)
    guarded = [
        (*_values(bill, _MOVED), bill.workspace_id, bill.job_id, bill.version)
        for bill in changed
        if bill.version > 0
    ]
    if tx.execute_bulk(_UPDATE_BILLS, guarded) != len(guarded):
        raise StaleWrite("a bill was moved by someone else")
    tx.execute_bulk(_ADD_USAGE, pending.usage)


def _values(bill: Bill, names: tuple[str, ...]) -> tuple[Any, ...]:
    found = {name: getattr(bill, name) for name in names}
    found["version"] = bill.version + 1
    found["holds"] = [
        [hold.attempt, hold.period, hold.amount_micros, hold.reservation_id] for hold in bill.holds
    ]
    return tuple(found.values())


def _bill(row: Row[Any]) -> Bill:
    values = dict(row._mapping)
    values["holds"] = tuple(Hold.of(row.job_id, *hold) for hold in values["holds"])
    return Bill(**values)


def _usage(row: Row[Any]) -> Usage:
    return Usage(
        lease_id=row.lease_id,
        task_index=row.task_index,
        node_id=row.node_id,
        ours=row.ours,
        billed_micros=row.billed_micros,
        metered_micros=row.metered_micros,
        price_micros_per_hour=row.price_micros_per_hour,
        simulated=row.simulated,
    )
