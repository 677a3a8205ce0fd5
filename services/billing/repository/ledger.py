"""Rows of the ledger: accounts, transfers, postings. Balances move by trigger.

Transfers of one unit of work are written together at its end, or before the first read that could
miss them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, literal, select, tuple_

from libs.db import Bulk, Tx
from libs.tenancy import Scope, Tenant
from services.billing.domain import (
    CURRENCY,
    RESOLVED_BY,
    Account,
    Balance,
    Posting,
    Reservation,
    Transfer,
    TransferKind,
    workspace_accounts,
)
from services.billing.tables import accounts, balances, postings, transfers

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


@dataclass(slots=True)
class _Pending:
    """Rows that the unit of work has not written yet."""

    transfers: list[tuple[Any, ...]] = field(default_factory=list)
    postings: list[tuple[Any, ...]] = field(default_factory=list)


_resolver = transfers.alias("resolver")
_ACCOUNTS = select(accounts.c.account_id).where(
    accounts.c.account_id.in_(bindparam("ids", expanding=True))
)
_FIND = (
    select(transfers, _resolver.c.kind.label("resolved_by"))
    .outerjoin(_resolver, _resolver.c.pending_id == transfers.c.transfer_id)
    .where(transfers.c.transfer_id == bindparam("id"))
)
_GIVEN_BACK = select(func.coalesce(func.sum(transfers.c.amount_micros), 0)).where(
    transfers.c.workspace_id == bindparam("workspace_id"),
    transfers.c.job_id == bindparam("job_id"),
    transfers.c.kind == literal(TransferKind.VOID.value),
)
_ADD_TRANSFERS = Bulk(
    insert(transfers),
    "transfer_id",
    "workspace_id",
    "job_id",
    "attempt",
    "period",
    "kind",
    "pending_id",
    "reservation_id",
    "amount_micros",
    "price_micros_per_hour",
    "memo",
    "created_time",
)
_ADD_POSTINGS = Bulk(
    insert(postings), "transfer_id", "line", "debit_account", "credit_account", "amount_micros"
)
_ADD_ACCOUNT = insert(accounts)
_AVAILABLE = select(balances.c.available_micros).where(balances.c.account_id == bindparam("id"))
_BALANCES = select(balances.c.account_id, balances.c.available_micros).where(
    balances.c.account_id.in_(bindparam("ids", expanding=True))
)
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


class LedgerRows:
    """Every method over a workspace's rows takes its scope first."""

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
        """Writes transfers and their postings, at the latest at the end of the unit of work; the
        database moves the balances, or refuses."""
        pending = tx.memo(_Pending, _Pending)
        if not pending.transfers:
            tx.before_commit(lambda: self._flush(tx))
        now = tx.now()
        pending.transfers += [_transfer_row(tenant, each, now) for each in new]
        pending.postings += [_posting_row(line) for each in new for line in each.postings]

    def _flush(self, tx: Tx) -> None:
        pending = tx.memo(_Pending, _Pending)
        new, lines = pending.transfers, pending.postings
        pending.transfers, pending.postings = [], []
        tx.execute_bulk(_ADD_TRANSFERS, new)
        tx.execute_bulk(_ADD_POSTINGS, lines)

    def find_transfer(self, tx: Tx, transfer_id: str) -> Found | None:
        """Transfer by its deterministic id. The caller compares the workspace."""
        self._flush(tx)
        row = tx.execute(_FIND, {"id": transfer_id}).first()
        if row is None:
            return None
        return Found(row.workspace_id, row.reservation_id or "", row.amount_micros, row.resolved_by)

    def given_back(self, tx: Tx, tenant: Tenant, job_id: str) -> int:
        """Micro-USD of holds of a job that were released whole."""
        self._flush(tx)
        keys = {"workspace_id": tenant.workspace_id, "job_id": job_id}
        return int(tx.execute(_GIVEN_BACK, keys).scalar_one())

    def available(self, tx: Tx, tenant: Tenant) -> int:
        """Micro-USD free to spend; 0 for a workspace that never had credit."""
        self._flush(tx)
        _, wallet, _ = workspace_accounts(tenant.workspace_id)
        return tx.execute(_AVAILABLE, {"id": wallet.account_id}).scalar() or 0

    def balance(self, tx: Tx, tenant: Tenant) -> Balance:
        """The wallet; spent is what came in and is neither free nor held."""
        names = [each.account_id for each in workspace_accounts(tenant.workspace_id)]
        rows = tx.execute(_BALANCES, {"ids": names})
        found = {row.account_id: row.available_micros for row in rows}
        funding, wallet, held = (found.get(name, 0) for name in names)
        return Balance(wallet, held, -funding - wallet - held, tx.now())

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


def _transfer_row(tenant: Tenant, new: NewTransfer, now: datetime) -> tuple[Any, ...]:
    return (
        new.transfer_id,
        tenant.workspace_id,
        new.job_id,
        new.attempt,
        new.period,
        new.kind.value,
        new.pending_id,
        new.reservation_id,
        new.amount_micros,
        new.price_micros_per_hour,
        new.memo,
        now,
    )


def _posting_row(posting: Posting) -> tuple[Any, ...]:
    return (
        posting.transfer_id,
        posting.line,
        posting.debit,
        posting.credit,
        posting.amount_micros,
    )
