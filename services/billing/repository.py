"""Rows of the ledger and of the bills. Statements are built once; balances move by trigger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, insert, literal, select, tuple_, update

from libs.db import Tx
from libs.errors import StaleWrite
from libs.tenancy import Scope, SystemScope, Tenant
from services.billing.domain import (
    CURRENCY,
    RESOLVED_BY,
    Account,
    Balance,
    Bill,
    Close,
    Hold,
    Posting,
    Reservation,
    Transfer,
    TransferKind,
    Usage,
    workspace_accounts,
)
from services.billing.tables import accounts, balances, bills, postings, transfers, usage

_KNOWN_MAX = 100_000


@dataclass(frozen=True, slots=True)
class NewTransfer:
    """A transfer to write, with its postings."""

    transfer_id: str
    kind: TransferKind
    amount_micros: int
    job_id: str = ""
    attempt: int = 0
    period: int = 0
    pending_id: str | None = None
    reservation_id: str | None = None
    price_micros_per_hour: int = 0
    memo: str = ""
    postings: tuple[Posting, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A transfer that exists already."""

    workspace_id: str
    reservation_id: str
    amount_micros: int
    resolved_by: str | None


_resolver = transfers.alias("resolver")
_ACCOUNTS = select(accounts.c.account_id).where(
    accounts.c.account_id.in_(bindparam("ids", expanding=True))
)
_FIND = (
    select(transfers, _resolver.c.kind.label("resolved_by"))
    .outerjoin(_resolver, _resolver.c.pending_id == transfers.c.transfer_id)
    .where(transfers.c.transfer_id == bindparam("id"))
)
_HOLDS = (
    select(
        transfers.c.transfer_id,
        transfers.c.reservation_id,
        transfers.c.attempt,
        transfers.c.period,
        transfers.c.amount_micros,
    )
    .outerjoin(_resolver, _resolver.c.pending_id == transfers.c.transfer_id)
    .where(
        transfers.c.workspace_id == bindparam("workspace_id"),
        transfers.c.job_id == bindparam("job_id"),
        transfers.c.kind == literal(TransferKind.PENDING.value),
        _resolver.c.transfer_id.is_(None),
    )
    .order_by(transfers.c.attempt, transfers.c.period)
)
_GIVEN_BACK = select(func.coalesce(func.sum(transfers.c.amount_micros), 0)).where(
    transfers.c.workspace_id == bindparam("workspace_id"),
    transfers.c.job_id == bindparam("job_id"),
    transfers.c.kind == literal(TransferKind.VOID.value),
)
_ADD_TRANSFER = insert(transfers)
_ADD_POSTING = insert(postings)
_ADD_ACCOUNT = insert(accounts)
_AVAILABLE = select(balances.c.available_micros).where(balances.c.account_id == bindparam("id"))
_BALANCES = select(balances.c.account_id, balances.c.available_micros).where(
    balances.c.account_id.in_(bindparam("ids", expanding=True))
)
_ADD_BILL = insert(bills)
_BILL = select(bills).where(
    bills.c.workspace_id == bindparam("workspace_id"), bills.c.job_id == bindparam("job_id")
)
_KEYS = ("workspace_id", "job_id", "created_time")
_MOVED = [column.name for column in bills.c if column.name not in _KEYS]
_UPDATE_BILL = (
    update(bills)
    .where(
        bills.c.workspace_id == bindparam("key_workspace"),
        bills.c.job_id == bindparam("key_job"),
        bills.c.version == bindparam("key_version"),
    )
    .values({name: bindparam(name) for name in _MOVED})
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
_ADD_USAGE = insert(usage)
_LIST = (
    select(postings)
    .join(transfers, transfers.c.transfer_id == postings.c.transfer_id)
    .where(
        tuple_(postings.c.transfer_id, postings.c.line)
        > tuple_(bindparam("after_id"), bindparam("after_line"))
    )
    .order_by(postings.c.transfer_id, postings.c.line)
    .limit(bindparam("limit"))
)


class BillingRepository:
    """Reads and writes; every method over a workspace's rows takes a scope first."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def ensure(self, tx: Tx, wanted: Iterable[Account]) -> None:
        """Creates the accounts that do not exist, with a balance of 0."""
        new = {each.account_id: each for each in wanted if each.account_id not in self._known}
        if not new:
            return
        there = set(tx.execute(_ACCOUNTS, {"ids": list(new)}).scalars())
        rows = [_account_row(each) for name, each in new.items() if name not in there]
        if rows:
            tx.execute(_ADD_ACCOUNT, rows)
        tx.after_commit(lambda: self._remember(new))

    def _remember(self, names: Iterable[str]) -> None:
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        self._known.update(names)

    def add_transfers(self, tx: Tx, tenant: Tenant, new: Sequence[NewTransfer]) -> None:
        """Writes transfers and their postings; the database moves the balances, or refuses."""
        now = tx.now()
        tx.execute(_ADD_TRANSFER, [_transfer_row(tenant, each, now) for each in new])
        lines = [_posting_row(posting) for each in new for posting in each.postings]
        if lines:
            tx.execute(_ADD_POSTING, lines)

    def find_transfer(self, tx: Tx, transfer_id: str) -> Found | None:
        """Transfer by its deterministic id. The caller compares the workspace."""
        row = tx.execute(_FIND, {"id": transfer_id}).first()
        if row is None:
            return None
        return Found(row.workspace_id, row.reservation_id or "", row.amount_micros, row.resolved_by)

    def holds(self, tx: Tx, tenant: Tenant, job_id: str) -> tuple[Hold, ...]:
        """Holds of a job that are not resolved, oldest first."""
        rows = tx.execute(_HOLDS, {"workspace_id": tenant.workspace_id, "job_id": job_id})
        return tuple(Hold(*row) for row in rows)

    def given_back(self, tx: Tx, tenant: Tenant, job_id: str) -> int:
        """Micro-USD of holds of a job that were released whole."""
        keys = {"workspace_id": tenant.workspace_id, "job_id": job_id}
        return int(tx.execute(_GIVEN_BACK, keys).scalar_one())

    def available(self, tx: Tx, tenant: Tenant) -> int:
        """Micro-USD free to spend; 0 for a workspace that never had credit."""
        _, wallet, _ = workspace_accounts(tenant.workspace_id)
        return tx.execute(_AVAILABLE, {"id": wallet.account_id}).scalar() or 0

    def balance(self, tx: Tx, tenant: Tenant) -> Balance:
        """The wallet; spent is what came in and is neither free nor held."""
        names = [each.account_id for each in workspace_accounts(tenant.workspace_id)]
        rows = tx.execute(_BALANCES, {"ids": names})
        found = {row.account_id: row.available_micros for row in rows}
        funding, wallet, held = (found.get(name, 0) for name in names)
        return Balance(wallet, held, -funding - wallet - held, tx.now())

    def bill(self, tx: Tx, tenant: Tenant, job_id: str) -> Bill | None:
        """What is known of a job's money."""
        row = tx.execute(_BILL, {"workspace_id": tenant.workspace_id, "job_id": job_id}).first()
        return None if row is None else _bill(row)

    def save_bill(self, tx: Tx, bill: Bill) -> None:
        """Writes a bill; StaleWrite when someone else moved it since it was read."""
        values = {name: getattr(bill, name) for name in _MOVED} | {"version": bill.version + 1}
        if bill.version == 0:
            keys = {name: getattr(bill, name) for name in _KEYS}
            tx.execute(_ADD_BILL, keys | values)
            return
        guard = {
            "key_workspace": bill.workspace_id,
            "key_job": bill.job_id,
            "key_version": bill.version,
        }
        if tx.execute(_UPDATE_BILL, guard | values).rowcount != 1:
            raise StaleWrite(f"bill of {bill.job_id}")

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
        return sorted(found, key=lambda reading: (reading.task_index, reading.lease_id))

    def read_attempts(self, tx: Tx, tenant: Tenant, job_id: str) -> list[int]:
        """Attempts that have a reading."""
        keys = {"workspace_id": tenant.workspace_id, "job_id": job_id}
        return list(tx.execute(_READ_ATTEMPTS, keys).scalars())

    def add_usage(self, tx: Tx, tenant: Tenant, close: Close, reading: Usage, period: int) -> None:
        """Writes one meter reading; it is never changed."""
        tx.execute(
            _ADD_USAGE,
            {
                "workspace_id": tenant.workspace_id,
                "job_id": close.job_id,
                "attempt": close.attempt,
                "lease_id": close.lease_id,
                "allocation_id": close.allocation_id,
                "task_index": close.task_index,
                "node_id": close.node_id,
                "period": period,
                "outcome": close.outcome.value,
                "ours": reading.ours,
                "price_micros_per_hour": close.price_micros_per_hour,
                "billed_micros": reading.billed_micros,
                "metered_micros": reading.metered_micros,
                "simulated": close.simulated,
                "claimed_time": close.claimed_time,
                "exited_time": close.exited_time,
                "created_time": tx.now(),
            },
        )

    def list_postings(
        self, tx: Tx, scope: Scope, job_id: str, after: tuple[str, str], limit: int
    ) -> list[Posting]:
        """Postings by transfer id and line, after that pair."""
        query = _LIST
        if isinstance(scope, Tenant):
            query = query.where(transfers.c.workspace_id == scope.workspace_id)
        if job_id:
            query = query.where(transfers.c.job_id == job_id)
        rows = tx.execute(query, {"after_id": after[0], "after_line": after[1], "limit": limit})
        return [Posting(*row) for row in rows]


def reservation(found: Found, available: int) -> Reservation:
    """An existing hold as its asker sees it."""
    kind = TransferKind(found.resolved_by) if found.resolved_by else None
    return Reservation(found.reservation_id, RESOLVED_BY[kind], found.amount_micros, available)


def shown(posting: Posting) -> Transfer:
    """A posting as operators read it: its line is part of the id."""
    name = f"{posting.transfer_id}#{posting.line}" if posting.line else posting.transfer_id
    return Transfer(name, posting.debit, posting.credit, posting.amount_micros)


def _account_row(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "workspace_id": account.workspace_id,
        "kind": account.kind.value,
        "currency": CURRENCY,
    }


def _transfer_row(tenant: Tenant, new: NewTransfer, now: datetime) -> dict[str, Any]:
    return {
        "transfer_id": new.transfer_id,
        "workspace_id": tenant.workspace_id,
        "job_id": new.job_id,
        "attempt": new.attempt,
        "period": new.period,
        "kind": new.kind.value,
        "pending_id": new.pending_id,
        "reservation_id": new.reservation_id,
        "amount_micros": new.amount_micros,
        "price_micros_per_hour": new.price_micros_per_hour,
        "memo": new.memo,
        "created_time": now,
    }


def _posting_row(posting: Posting) -> dict[str, Any]:
    return {
        "transfer_id": posting.transfer_id,
        "line": posting.line,
        "debit_account": posting.debit,
        "credit_account": posting.credit,
        "amount_micros": posting.amount_micros,
    }


def _bill(row: Row[Any]) -> Bill:
    return Bill(**row._mapping)


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
